"""Images in tar files (WebDataset shards), read in linear time: a shard knows the byte at which it begins."""

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

from hf_captioner.bulk.shards import SHARD_SIZE, NamedImage, Shard, UnreadableSource
from hf_captioner.errors import ImageError
from hf_captioner.images import IMAGE_SUFFIXES, MAX_FILE_BYTES

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)
"""What Python's readers raise for a broken tar file."""


@dataclass(frozen=True)
class TarShard:
    """Consecutive images of a tar file."""

    path: str
    offset: int = 0
    """Byte of the first image's first header block, which for a long name is a GNU or pax header. 0 for a compressed
    file, where everything before a member has to be decompressed to reach it."""
    count: int | None = None
    """Number of images; None for a compressed file, which is one shard."""
    pax_headers: dict[str, str] = field(default_factory=dict)
    """Global pax headers that stand before `offset`."""

    def __iter__(self) -> Iterator[NamedImage]:
        try:
            with self._open() as tar:
                for member in islice(_image_members(tar), self.count):
                    name = f"{self.path}/{member.name}"
                    yield NamedImage(name, _content(name, tar, member))
        except TAR_ERRORS as error:
            yield from UnreadableSource(self.path, f"the tar file cannot be read any further ({error})")

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        if self.count is None:
            with tarfile.open(self.path, tarinfo=_StrictTarInfo) as tar:
                yield tar
        else:
            with Path(self.path).open("rb") as file:
                file.seek(self.offset)
                with tarfile.TarFile(fileobj=file, tarinfo=_StrictTarInfo, pax_headers=dict(self.pax_headers)) as tar:
                    yield tar


def tar_shards(path: str) -> list[Shard]:
    """The shards of a tar file: one pass over its headers; a compressed file is not read yet.

    A file that is broken somewhere gives the images before that, then an UnreadableSource.
    """
    shards: list[Shard] = []
    count, offset, pax_headers = 0, 0, dict[str, str]()
    reason = ""
    try:
        with tarfile.open(path, tarinfo=_StrictTarInfo) as tar:
            if not isinstance(tar.fileobj, io.BufferedReader):  # compressed, whatever its name says
                return [TarShard(path)]
            for member in _image_members(tar):
                if count == 0:
                    offset, pax_headers = member.offset, dict(tar.pax_headers)
                count += 1
                if count == SHARD_SIZE:
                    shards.append(TarShard(path, offset, count, pax_headers))
                    count = 0
    except TAR_ERRORS as error:
        reason = f"the tar file cannot be read{' any further' if shards or count else ''} ({error})"
    if count:
        shards.append(TarShard(path, offset, count, pax_headers))
    return [*shards, UnreadableSource(path, reason)] if reason else shards


class _StrictTarInfo(tarfile.TarInfo):
    """A header; one that is damaged is an error, where TarFile takes it for the end of the file."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset:,}") from error


def _image_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # TarFile would keep every member
        if member.isfile() and member.name.lower().endswith(tuple(IMAGE_SUFFIXES)):
            yield member


def _content(name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageError:
    if member.size > MAX_FILE_BYTES:
        return ImageError(f"{name}: the file has {member.size:,} bytes; at most {MAX_FILE_BYTES:,} are read.")
    try:
        return tar.extractfile(member).read()  # type: ignore[union-attr]
    except TAR_ERRORS as error:
        return ImageError(f"{name}: the tar file cannot be read here ({error}).")
