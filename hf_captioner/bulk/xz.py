"""Files that `xz` compressed, in bounded memory: such a file says itself how much its reader has to remember."""

import io
import lzma
from pathlib import Path
from typing import Any

MAX_MEMORY_BYTES = 1 << 27
"""Of a decompressor; twice what `xz -9` asks for."""


class XzFile(io.RawIOBase):
    """The content of a file, which can be sought in as TarFile does: to and fro at the start, then on."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115  # `close` closes it
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._decompressor, self._position = _decompressor(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises OSError for what needs too much memory, lzma.LZMAError and EOFError for a broken file."""
        content = b""
        while not content and len(buffer):
            if self._decompressor.eof:
                rest = self._decompressor.unused_data.lstrip(b"\0")  # streams may have padding between them
                while not rest and (read := self._file.read(io.DEFAULT_BUFFER_SIZE)):
                    rest = read.lstrip(b"\0")
                if not rest:
                    return 0
                self._decompressor = _decompressor()
            else:
                rest = self._file.read(io.DEFAULT_BUFFER_SIZE) if self._decompressor.needs_input else b""
                if not rest and self._decompressor.needs_input:
                    raise EOFError("it ends before its end-of-stream marker")
            content = self._decompress(rest, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def _decompress(self, packed: bytes, most: int) -> bytes:
        try:
            return self._decompressor.decompress(packed, most)
        except lzma.LZMAError as error:
            if "Memory usage limit" not in str(error):
                raise
            raise OSError(f"decompressing it needs more than {MAX_MEMORY_BYTES:,} bytes of memory") from error

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("seek from elsewhere than the start")
        if position < self._position:
            self._rewind()
        while self._position < position and self.read(min(1 << 20, position - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()
        super().close()


def _decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=MAX_MEMORY_BYTES)
