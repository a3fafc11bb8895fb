"""Images in the rows of tables: Parquet files and the data sets of `datasets`."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_captioner.bulk.parquet import iter_rows
from hf_captioner.bulk.rows import image_in_row, image_in_value, undecoded
from hf_captioner.bulk.shards import MAX_PACKED_BYTES, SHARD_SIZE, NamedImage, Shard, UnreadableSource
from hf_captioner.errors import ImageError, install_line
from hf_captioner.hub.checkpoint import lies_in
from hf_captioner.images import ImageSource

TABLE_SUFFIX = ".parquet"


@dataclass(frozen=True)
class ParquetShard:
    """Whole row groups of a Parquet file: these can be read without reading what stands before them."""

    path: str
    column: str
    """The column that holds the images' bytes."""
    groups: tuple[int, ...]
    start: int
    """The first row."""
    count: int
    allow_outside_paths: bool = False

    def __iter__(self) -> Iterator[NamedImage]:
        import pyarrow

        folder = str(Path(self.path).parent)
        try:
            for row, batch in enumerate(iter_rows(self.path, [self.column], self.groups), self.start):
                name = f"{self.path}#{row}"
                image = _image_in_batch(batch, name)
                yield NamedImage(name, _confined(image, name, folder, self.allow_outside_paths))
        except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: a column's name is not UTF-8
            yield from UnreadableSource(self.path, f"the table cannot be read any further ({error})")


@dataclass(frozen=True)
class DatasetShard:
    """Consecutive rows of a data set that `save_to_disk` wrote."""

    path: str
    start: int
    count: int
    allow_outside_paths: bool = False

    def __iter__(self) -> Iterator[NamedImage]:
        import datasets
        import pyarrow

        try:
            rows = undecoded(datasets.load_from_disk(self.path))
            for row in range(self.start, self.start + self.count):
                name = f"{self.path}#{row}"
                image = _bounded(image_in_row(rows[row], name), name)
                yield NamedImage(name, _confined(image, name, self.path, self.allow_outside_paths))
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            yield from UnreadableSource(self.path, f"the saved data set cannot be read any further ({error})")


def _image_in_batch(batch: Any, name: str) -> ImageSource | ImageError:
    """The image of a batch of one row and one column."""
    if batch.nbytes > MAX_PACKED_BYTES:
        return _too_large(name, batch.nbytes)
    try:
        return image_in_value(batch.column(0)[0].as_py(), name)
    except UnicodeDecodeError as error:
        return ImageError(f"{name}: the image's path is not UTF-8 ({error}).")


def _bounded(image: ImageSource | ImageError, name: str) -> ImageSource | ImageError:
    """The image, unless it is a larger file than those of other tables may be."""
    if isinstance(image, bytes) and len(image) > MAX_PACKED_BYTES:
        return _too_large(name, len(image))
    return image


def _too_large(name: str, size: int) -> ImageError:
    return ImageError(f"{name}: the image has {size:,} bytes; at most {MAX_PACKED_BYTES:,} are read here.")


def _confined(
    image: ImageSource | ImageError, name: str, folder: str, allow_outside_paths: bool
) -> ImageSource | ImageError:
    """The image, unless it is a path that leads out of the folder of the table that named it: a stranger's table could
    have any picture of this machine captioned. A relative path begins in that folder."""
    if not isinstance(image, str | os.PathLike):
        return image
    path = Path(folder, image)
    if allow_outside_paths or lies_in(path, Path(folder)):
        return path
    return ImageError(f"{name}: {image} is outside the table's folder and not read; --allow-outside-paths reads it.")


def parquet_shards(path: str, *, allow_outside_paths: bool = False) -> list[Shard]:
    """The shards of a Parquet file, from its footer alone."""
    try:
        import pyarrow.parquet
    except ImportError:
        return [UnreadableSource(path, f"Parquet needs pyarrow; run: {install_line('bulk')}")]
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        return [UnreadableSource(path, f"the table cannot be read ({error})")]
    columns = [field.name for field in schema if _holds_images(field.type)]
    if not columns:
        found = ", ".join(schema.names)
        return [UnreadableSource(path, f"the table has no column of images; found {found}")]
    column = "image" if "image" in columns else columns[0]
    shards: list[Shard] = []
    groups, start, count = list[int](), 0, 0
    for group, size in enumerate(sizes):
        groups.append(group)
        count += size
        if count >= SHARD_SIZE or group == len(sizes) - 1:
            shards.append(ParquetShard(path, column, tuple(groups), start, count, allow_outside_paths))
            groups, start, count = [], start + count, 0
    return [shard for shard in shards if shard.count]


def _holds_images(kind: Any) -> bool:
    """Whether a column's Arrow type holds files' bytes: by themselves or, as `datasets` stores them, beside a path."""
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(_holds_images(kind.field(index).type) for index in range(kind.num_fields))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def is_saved_dataset(names: set[str]) -> bool:
    """Whether a folder that holds these names is a data set that `save_to_disk` wrote."""
    return {"state.json", "dataset_info.json"} <= names


def dataset_shards(folder: str, *, allow_outside_paths: bool = False) -> list[Shard]:
    """The shards of a data set that `save_to_disk` wrote."""
    try:
        import datasets
    except ImportError:
        return [UnreadableSource(folder, f"a saved data set needs datasets; run: {install_line('bulk')}")]
    try:
        count = len(datasets.load_from_disk(folder))
    except (OSError, ValueError, KeyError) as error:
        return [UnreadableSource(folder, f"the saved data set cannot be read ({error})")]
    starts = range(0, count, SHARD_SIZE)
    return [DatasetShard(folder, start, min(SHARD_SIZE, count - start), allow_outside_paths) for start in starts]
