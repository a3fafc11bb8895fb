"""Where many images come from: files, folders, tar files, Parquet files, `datasets` data sets, any iterable.

Sources are read in shards of a few hundred images, one after the other or, with Ray, each by another machine; of a
shard only what is being captioned is in memory.
"""

import os
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

from hf_captioner.bulk.hub_dataset import HUB_SCHEME, download_dataset
from hf_captioner.bulk.rows import check_iterable, named_images, path_name
from hf_captioner.bulk.shards import SHARD_SIZE, Discovered, FileShard, NamedImage, Shard, UnreadableSource
from hf_captioner.bulk.tables import TABLE_SUFFIX, dataset_shards, is_saved_dataset, parquet_shards
from hf_captioner.bulk.tar import TAR_SUFFIXES, tar_shards
from hf_captioner.images import IMAGE_SUFFIXES, NOT_DOWNLOADED, is_url

__all__ = ["Discovered", "NamedImage", "Shard", "Source", "iter_images", "read_sources", "shards"]

Source = str | os.PathLike[str]
"""A path to an image, a folder, a tar file, a Parquet file or a data set that `save_to_disk` wrote; or
`hf://datasets/OWNER/NAME` for a data set of the Hub, which is downloaded into the cache."""


def iter_images(*sources: Source | Iterable[Any], allow_outside_paths: bool = False) -> Iterator[NamedImage]:
    """The images of these sources, in order, each with its name; a folder's in the order of their paths.

    A source is a path (see Source), a `datasets` data set of either style, or any other iterable. An element of an
    iterable is one image: a path, a file's bytes, a binary file object, a Pillow image, an array, a tensor, a row with
    an image in it, or a NamedImage. It is named by its path, where it is one, else by its number (`#0`).

    A table (a Parquet file, a saved data set) may hold a path in place of an image. It counts from the table's folder;
    one that leads out of it is read only with `allow_outside_paths`, since a stranger may have written the table.

    What cannot be read comes out as an ImageError in its place. Raises TypeError at once for a source that is none of
    these, such as a single array, and DataError for a Hub data set that cannot be downloaded.
    """
    for source in sources:
        if not isinstance(source, str | os.PathLike):
            check_iterable(source)
    return read_sources(sources, Discovered(), allow_outside_paths=allow_outside_paths)


def read_sources(
    sources: Iterable[Source | Iterable[Any]], discovered: Discovered, *, allow_outside_paths: bool = False
) -> Iterator[NamedImage]:
    """As `iter_images`; counts into `discovered` how many images there are, source by source."""
    for source in sources:
        if isinstance(source, str | os.PathLike):
            for shard in shards([source], discovered, allow_outside_paths=allow_outside_paths):
                yield from shard
        else:
            check_iterable(source)
            discovered.add(len(source) if isinstance(source, Sized) else None)
            yield from named_images(source)


def shards(sources: Iterable[Source], discovered: Discovered, *, allow_outside_paths: bool = False) -> Iterator[Shard]:
    """The images of these sources in shards; nothing but names and headers is read here, and each source once.

    Counts into `discovered` how many images there are: a tar file's or a table's before its first shard comes out, a
    folder's directory by directory.
    """
    files: list[str] = []
    for source in sources:
        for found in _discover(path_name(source), discovered, allow_outside_paths):
            if isinstance(found, str):
                files.append(found)
            if files and (len(files) == SHARD_SIZE or not isinstance(found, str)):
                yield FileShard(tuple(files))
                files = []
            if not isinstance(found, str):
                yield found
    if files:
        yield FileShard(tuple(files))


def _discover(source: str, discovered: Discovered, allow_outside_paths: bool) -> Iterator[str | Shard]:
    """The shards of a source, and the paths of those of its images that are files."""
    if source.startswith(HUB_SCHEME):
        folder = download_dataset(source)
        yield from _walk(folder, discovered, WalkedFolders(folder), allow_outside_paths)
    elif is_url(source):
        yield from _counted([UnreadableSource(source, NOT_DOWNLOADED)], discovered)
    elif Path(source).is_dir():
        yield from _walk(source, discovered, WalkedFolders(source), allow_outside_paths)
    elif _is_packed(source):
        is_tar = source.lower().endswith(TAR_SUFFIXES)
        found = tar_shards(source) if is_tar else parquet_shards(source, allow_outside_paths=allow_outside_paths)
        yield from _counted(found, discovered)
    else:
        discovered.add(1)
        yield source


class WalkedFolders:
    """The folders of one source that were walked already: each is walked once, however many links lead to it."""

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._walked: set[tuple[int, int]] = set()

    def enter(self, folder: str) -> bool:
        """Whether to walk this folder. A link into the source itself is not followed: its target has a name there."""
        path = Path(folder)
        if self._walked and path.is_symlink() and Path(os.path.realpath(path)).is_relative_to(self._root):
            return False
        status = path.stat()
        identity = status.st_dev, status.st_ino
        new = identity not in self._walked
        self._walked.add(identity)
        return new


def _walk(
    folder: str, discovered: Discovered, walked: WalkedFolders, allow_outside_paths: bool
) -> Iterator[str | Shard]:
    """What a folder holds, at any depth, but for directories named *.parquet: tables, perhaps our own output."""
    try:
        if not walked.enter(folder):
            return
        with os.scandir(folder) as entries:
            names = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        reason = f"the folder cannot be read ({error.strerror})"
        yield from _counted([UnreadableSource(folder, reason)], discovered)
        return
    if is_saved_dataset({name for name, _ in names}):
        yield from _counted(dataset_shards(folder, allow_outside_paths=allow_outside_paths), discovered)
        return
    discovered.add(sum(not is_folder and _is_image(name) for name, is_folder in names))
    for name, is_folder in names:
        path = name if folder == "." else f"{folder}/{name}"
        if is_folder and not name.lower().endswith(TABLE_SUFFIX):
            yield from _walk(path, discovered, walked, allow_outside_paths)
        elif not is_folder and _is_image(name):
            yield path
        elif not is_folder and _is_packed(name):
            yield from _discover(path, discovered, allow_outside_paths)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a place that is closed: a file's name decides whether it is an image
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(tuple(IMAGE_SUFFIXES))


def _is_packed(name: str) -> bool:
    return name.lower().endswith((*TAR_SUFFIXES, TABLE_SUFFIX))


def _counted(found: list[Shard], discovered: Discovered) -> list[Shard]:
    for shard in found:
        discovered.add(shard.count)
    return found
