"""What every reader shares: named images, and the shards in which they are read.

A shard is a frozen dataclass of plain JSON values, so that it can be sent to another machine and read there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hf_captioner.errors import ImageError
from hf_captioner.images import ImageSource

SHARD_SIZE = 256
"""Images read together; with Ray, captioned by one worker."""

MAX_PACKED_BYTES = 100_000_000
"""A larger image is not read where it is inside another file: there it is in memory as a whole."""

MAX_BATCH_BYTES = 100_000_000
"""Files' bytes with which a batch is full."""


@dataclass(frozen=True)
class NamedImage:
    name: str
    """Its path; `shard.tar/member` or `table.parquet#row` for an image that is not a file of its own."""
    image: ImageSource | ImageError
    """An ImageError where the image could not be read."""


def next_batch(images: Iterator[NamedImage], size: int) -> list[NamedImage]:
    """The next `size` images, or as many as hold MAX_BATCH_BYTES in memory; none at the end."""
    batch: list[NamedImage] = []
    held = 0
    while len(batch) < size and held < MAX_BATCH_BYTES and (named := next(images, None)) is not None:
        batch.append(named)
        held += len(named.image) if isinstance(named.image, bytes) else 0
    return batch


class Shard(Protocol):
    """Images that can be read without reading any other shard."""

    @property
    def count(self) -> int | None:
        """Number of images; None where only reading tells."""

    def __iter__(self) -> Iterator[NamedImage]: ...


@dataclass
class Discovered:
    """Counts the images of the sources walked so far: the total of a progress bar, which grows with every source."""

    total: int | None = 0
    """None once a source does not tell how many it has, such as a compressed tar file or a generator."""

    def add(self, count: int | None) -> None:
        self.total = None if self.total is None or count is None else self.total + count


@dataclass(frozen=True)
class FileShard:
    """Images that are files."""

    paths: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NamedImage]:
        return (NamedImage(path, Path(path)) for path in self.paths)


@dataclass(frozen=True)
class UnreadableSource:
    """A source, or the rest of one, that cannot be read: it counts as one image that is an error."""

    path: str
    reason: str
    count: int = 1

    def __iter__(self) -> Iterator[NamedImage]:
        yield NamedImage(self.path, ImageError(f"{self.path}: {self.reason}."))
