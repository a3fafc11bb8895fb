"""Images in tar files (WebDataset shards), read in linear time: a shard knows the byte at which it begins."""

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Self

from hf_captioner.bulk.shards import MAX_PACKED_BYTES, SHARD_SIZE, NamedImage, Shard, UnreadableSource
from hf_captioner.bulk.xz import XzFile
from hf_captioner.errors import ImageError
from hf_captioner.images import IMAGE_SUFFIXES

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
TAR_ERRORS = (
    *(tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError),
    *(ValueError, OverflowError, RecursionError),  # numbers and names that make no sense
)
"""What Python's readers raise for a broken tar file."""
MAX_HEADER_BYTES = 1 << 20
"""The most that a member's headers may have together: one for a long name claims its size itself."""
MAX_GLOBAL_CHARACTERS = 1 << 16
"""The most that global headers may hold together; every shard keeps them."""
MAX_NAME_CHARACTERS = 4096


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
            with _BoundedTarFile.open(self.path, tarinfo=_StrictTarInfo) as tar:
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
        with _BoundedTarFile.open(path, tarinfo=_StrictTarInfo) as tar:
            if not isinstance(getattr(tar.fileobj, "raw", None), io.FileIO):  # compressed, whatever its name says
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


class _BoundedTarFile(tarfile.TarFile):
    @classmethod
    def xzopen(cls, name: Any, mode: Any = "r", fileobj: Any = None, preset: Any = None, **settings: Any) -> Self:
        """For `open`; TarFile's own takes as much memory as the file asks for."""
        file = io.BufferedReader(XzFile(name))
        try:
            tar = cls(name, "r", file, **settings)
        except BaseException as error:
            file.close()
            if isinstance(error, lzma.LZMAError | EOFError):
                raise tarfile.ReadError("not an lzma file") from error
            raise
        tar._extfileobj = False  # type: ignore[attr-defined]  # so that closing it closes the file
        return tar


class _StrictTarInfo(tarfile.TarInfo):
    """A header; one that is damaged is an error, where TarFile takes it for the end of the file."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        file, nested = tarfile_.fileobj, isinstance(tarfile_.fileobj, _HeaderReader)
        if not nested:
            tarfile_.fileobj = _HeaderReader(file)  # type: ignore[assignment, arg-type]
        try:
            member = super().fromtarfile(tarfile_)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset:,}") from error
        finally:
            tarfile_.fileobj = file
        if sum(map(len, tarfile_.pax_headers.values())) + len(tarfile_.pax_headers) > MAX_GLOBAL_CHARACTERS:
            raise tarfile.ReadError(f"its global headers have more than {MAX_GLOBAL_CHARACTERS:,} characters")
        if len(member.name) > MAX_NAME_CHARACTERS:
            raise tarfile.ReadError(f"a name has more than {MAX_NAME_CHARACTERS:,} characters")
        return member


class _HeaderReader:
    """The file while a member's headers are read, of which each says how many more bytes belong to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"a header has more than {MAX_HEADER_BYTES:,} bytes")
        return self.file.read(size)

    def seek(self, position: int) -> int:
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


def _image_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # TarFile would keep every member
        if member.isfile() and member.name.lower().endswith(tuple(IMAGE_SUFFIXES)):
            yield member


def _content(name: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageError:
    if member.size > MAX_PACKED_BYTES:
        return ImageError(f"{name}: the file has {member.size:,} bytes; at most {MAX_PACKED_BYTES:,} are read here.")
    try:
        return tar.extractfile(member).read()  # type: ignore[union-attr]
    except TAR_ERRORS as error:
        return ImageError(f"{name}: the tar file cannot be read here ({error}).")
