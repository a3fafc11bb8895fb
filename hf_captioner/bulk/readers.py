"""Where many images come from: files, folders, tar shards (WebDataset), Parquet tables, `datasets` data sets.

They are read in shards of a few hundred, one after the other, or each by another machine; of a shard only what is
being looked at is in memory.
"""

import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hf_captioner.errors import ImageError
from hf_captioner.images import IMAGE_SUFFIXES, MAX_FILE_BYTES, ImageSource

SHARD_SIZE = 256
"""Images that are read, and on a cluster captioned, together."""
TARS = (".tar", ".tar.gz", ".tgz")
TABLE = ".parquet"

Source = str | os.PathLike[str]
"""An image, a folder, a tar file, a Parquet table, or the folder of a data set that `save_to_disk` wrote."""


@dataclass(frozen=True)
class NamedImage:
    name: str
    """Its path; `shard.tar/member`, or `table.parquet#row` where it is not a file of its own."""
    image: ImageSource | ImageError
    """An ImageError where its shard could not be read."""


@dataclass(frozen=True)
class FileShard:
    """Images that are files."""

    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NamedImage]:
        return (NamedImage(path, Path(path)) for path in self.paths)


@dataclass(frozen=True)
class UnreadableSource:
    """A place that cannot be read at all: one image that is an error."""

    place: str
    reason: str

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[NamedImage]:
        yield NamedImage(self.place, ImageError(f"{self.place}: {self.reason}."))


@dataclass(frozen=True)
class ShardRange:
    """The images start to stop, counted from 0, of a place."""

    path: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class TarShard(ShardRange):
    """Images of a tar file."""

    def __iter__(self) -> Iterator[NamedImage]:
        try:
            with tarfile.open(self.path) as tar:
                for member in islice(_images(tar), self.start, self.stop):
                    name = f"{self.path}/{member.name}"
                    yield NamedImage(name, _content(name, tar, member))
        except UNREADABLE as error:
            yield from UnreadableSource(self.path, f"the tar file cannot be read on ({error})")


@dataclass(frozen=True)
class ParquetShard(ShardRange):
    """ParquetShard of a Parquet table."""

    column: str

    def __iter__(self) -> Iterator[NamedImage]:
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(self.path) as table:
                groups, row = _groups(table, self.start)
                for batch in table.iter_batches(batch_size=32, row_groups=groups, columns=[self.column]):
                    for value in batch.column(0):
                        if self.start <= row < self.stop:
                            yield NamedImage(f"{self.path}#{row}", _image_in(value.as_py(), f"{self.path}#{row}"))
                        row += 1
                    if row >= self.stop:
                        return
        except (OSError, pyarrow.ArrowException) as error:
            yield from UnreadableSource(self.path, f"the table cannot be read on ({error})")


@dataclass(frozen=True)
class DatasetShard(ShardRange):
    """ParquetShard of a data set that `datasets.save_to_disk` wrote."""

    def __iter__(self) -> Iterator[NamedImage]:
        import datasets

        rows = _encoded(datasets.load_from_disk(self.path))
        for row in range(self.start, self.stop):
            yield NamedImage(f"{self.path}#{row}", _image_in_row(rows[row], f"{self.path}#{row}"))


Shard = FileShard | UnreadableSource | TarShard | ParquetShard | DatasetShard

UNREADABLE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)
"""What a broken tar file makes Python's readers raise."""


def iter_images(*places: Source | Iterable[Any]) -> Iterator[NamedImage]:
    """The images of these places, in their order, with their names; a folder's in the order of their paths.

    A place may also be a `datasets` data set or any other iterable of rows, each a mapping with an image in it, or of
    images; these are named by their number. What cannot be read comes out as an ImageError in its place.
    """
    for place in places:
        if isinstance(place, str | os.PathLike):
            for shard in shards([place]):
                yield from shard
        else:
            for index, row in enumerate(_encoded(place)):
                yield NamedImage(f"#{index}", _image_in_row(row, f"#{index}"))


def is_collection(place: Source) -> bool:
    """Whether a place is a folder, a tar file or a table, and not an image."""
    return Path(place).is_dir() or os.fspath(place).lower().endswith((*TARS, TABLE))


def shards(places: Iterable[Source]) -> Iterator[Shard]:
    """The places' images in lots that can be read independently; nothing but names and headers is read here."""
    files: list[str] = []
    for place in places:
        for found in _found(str(Path(place))):
            if isinstance(found, str):
                files.append(found)
            if files and (len(files) == SHARD_SIZE or not isinstance(found, str)):
                yield FileShard(tuple(files))
                files = []
            if not isinstance(found, str):
                yield found
    if files:
        yield FileShard(tuple(files))


def _found(place: str) -> Iterator[str | Shard]:
    """The shards of a place, and the paths of those of its images that are files."""
    if Path(place).is_dir():
        if (Path(place) / "state.json").exists() and (Path(place) / "dataset_info.json").exists():
            yield from _saved(place)
        else:
            yield from _walk(place)
    elif place.lower().endswith(TARS):
        yield from _members(place)
    elif place.lower().endswith(TABLE):
        yield from _rows(place)
    else:
        yield place


def _walk(folder: str) -> Iterator[str | Shard]:
    """What a folder holds, at any depth; a table that is itself a folder is another's, or what we write."""
    try:
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        yield UnreadableSource(folder, f"the folder cannot be read ({error.strerror})")
        return
    for name, is_folder in names:
        path = name if folder == "." else f"{folder}/{name}"
        if is_folder and not name.lower().endswith(TABLE):
            yield from _walk(path)
        elif not is_folder and name.lower().endswith((*IMAGE_SUFFIXES, *TARS, TABLE)):
            yield from _found(path)


def _members(path: str) -> Iterator[Shard]:
    count, reason = 0, ""
    try:
        with tarfile.open(path) as tar:
            for _ in _images(tar):
                count += 1
    except UNREADABLE as error:
        reason = f"the tar file cannot be read{' on' * bool(count)} ({error})"
    # Of a compressed one everything before a member has to be unpacked to reach it.
    step = SHARD_SIZE if path.lower().endswith(".tar") else max(count, 1)
    for start in range(0, count, step):
        yield TarShard(path, start, min(start + step, count))
    if reason:
        yield UnreadableSource(path, reason)


def _images(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # else it remembers every member
        if member.isfile() and member.name.lower().endswith(tuple(IMAGE_SUFFIXES)):
            yield member


def _content(name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageError:
    if member.size > MAX_FILE_BYTES:
        return ImageError(f"{name}: the file has {member.size:,} bytes; at most {MAX_FILE_BYTES:,} are read.")
    try:
        return tar.extractfile(member).read()  # type: ignore[union-attr]
    except UNREADABLE as error:
        return ImageError(f"{name}: the tar file cannot be read here ({error}).")


def _rows(path: str) -> Iterator[Shard]:
    try:
        import pyarrow.parquet
    except ImportError:
        yield UnreadableSource(path, "Parquet needs pyarrow; pip install 'hf-captioner[bulk]'")
        return
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            schema, count = table.schema_arrow, table.metadata.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        yield UnreadableSource(path, f"the table cannot be read ({error})")
        return
    holds = [field.name for field in schema if _holds_images(field)]
    column = "image" if "image" in holds else next(iter(holds), None)
    if column is None:
        yield UnreadableSource(path, f"the table has no column of images; found {', '.join(schema.names)}")
        return
    for start in range(0, count, SHARD_SIZE):
        yield ParquetShard(path, start, min(start + SHARD_SIZE, count), column)


def _holds_images(field: Any) -> bool:
    """Whether a column holds files' bytes: by themselves, or as `datasets` stores them, beside a path."""
    import pyarrow

    kind = field.type
    if pyarrow.types.is_struct(kind):
        return any(_holds_images(kind.field(index)) for index in range(kind.num_fields))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _groups(table: Any, start: int) -> tuple[list[int], int]:
    """The row groups from the one that holds row `start` on, and the first row of these."""
    first = row = 0
    while row + table.metadata.row_group(first).num_rows <= start:
        row += table.metadata.row_group(first).num_rows
        first += 1
    return list(range(first, table.num_row_groups)), row


def _saved(folder: str) -> Iterator[Shard]:
    try:
        import datasets
    except ImportError:
        yield UnreadableSource(folder, "a saved data set needs datasets; pip install 'hf-captioner[bulk]'")
        return
    try:
        count = len(datasets.load_from_disk(folder))
    except (OSError, ValueError, KeyError) as error:
        yield UnreadableSource(folder, f"the saved data set cannot be read ({error})")
        return
    for start in range(0, count, SHARD_SIZE):
        yield DatasetShard(folder, start, min(start + SHARD_SIZE, count))


def _encoded(rows: Any) -> Any:
    """A `datasets` data set with its images left as files' bytes, so that a bad one spoils no other."""
    for name, feature in (getattr(rows, "features", None) or {}).items():
        if type(feature).__name__ == "Image":
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _image_in_row(row: Any, name: str) -> ImageSource | ImageError:
    """The image of a row: what is called `image`, or else the first thing that can be one."""
    if not isinstance(row, dict):
        return _image_in(row, name)
    given = [row["image"]] if "image" in row else [value for value in row.values() if isinstance(value, bytes | dict)]
    if not given:
        return ImageError(f"{name}: there is no image in the row; found {', '.join(map(str, row))}.")
    return _image_in(given[0], name)


def _image_in(value: Any, name: str) -> ImageSource | ImageError:
    """A value as `datasets` stores it, {bytes, path}, or any other image."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None:
        return ImageError(f"{name}: the row has no image.")
    image: ImageSource = value
    return image
