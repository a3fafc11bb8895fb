"""Parquet files of strangers, a row at a time: in such a file a few kilobytes may stand for gigabytes.

Arrow unpacks a page as a whole, so the size of every page is read from its header first; the file's footer, which has a
sum of them, may lie. A row at a time, since a dictionary lets many rows share one large value.
"""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

MAX_PAGE_BYTES = 200_000_000
"""The most that a page may unpack to."""
MAX_FOOTER_BYTES = 16_000_000
"""Of the footer, and of the header of a page."""
STREAMED = {"buffer_size": 1 << 20, "pre_buffer": False}
"""How a file is opened so that a large row group is never in memory as a whole."""


def iter_rows(path: str | Path, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[Any]:
    """The rows of a file, or of some of its row groups, each as an Arrow record batch of a single row.

    Such a batch has at most about MAX_PAGE_BYTES for each of its values; look at its `nbytes` before making Python
    objects of it. Raises OSError for larger pages, OSError or pyarrow.ArrowException for a file that cannot be read.
    """
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, **STREAMED) as table, Path(path).open("rb") as file:
        with _as_oserror():
            chunks = _column_chunks(file)
        for group in range(table.num_row_groups) if groups is None else groups:
            with _as_oserror():
                _check_pages(file, chunks[group], columns)
            yield from table.iter_batches(1, row_groups=[group], columns=list(columns))


@contextlib.contextmanager
def _as_oserror() -> Iterator[None]:
    """For a footer that is not nested as Parquet's are."""
    try:
        yield
    except (LookupError, TypeError, AttributeError) as error:
        raise OSError("its footer does not describe the columns") from error


def _column_chunks(file: BinaryIO) -> list[list[dict[int, Any]]]:
    """What the footer says of the columns of each row group.

    Arrow has read the same bytes, but its Python class for a column ends the process where they contradict each other.
    """
    file.seek(-8, io.SEEK_END)
    length = int.from_bytes(file.read(4), "little")
    if length > MAX_FOOTER_BYTES:
        raise OSError(f"its footer has {length:,} bytes, at most {MAX_FOOTER_BYTES:,} are read")
    file.seek(-8 - length, io.SEEK_END)
    footer = _Thrift(io.BytesIO(file.read(length))).struct()
    return [[column[3] for column in group[1]] for group in footer[4]]


def _check_pages(file: BinaryIO, chunks: Sequence[dict[int, Any]], columns: Sequence[str]) -> None:
    """Raise OSError where a page of these columns unpacks to more than MAX_PAGE_BYTES."""
    wanted = {name.partition(".")[0].encode() for name in columns}
    for chunk in chunks:
        path, size, start = chunk[3], chunk[7], chunk[9]
        if path[0] not in wanted:
            continue
        dictionary = chunk.get(11, 0)
        start = min(start, dictionary) if dictionary > 0 else start
        for unpacked in _page_sizes(file, start, start + size):
            if not 0 <= unpacked <= MAX_PAGE_BYTES:
                raise OSError(
                    f"a page of its column {b'.'.join(path).decode(errors='replace')} unpacks to {unpacked:,} bytes, "
                    f"at most {MAX_PAGE_BYTES:,} are read; write it with fewer rows in a row group"
                )


def _page_sizes(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    """The unpacked size of each page between two bytes of a file, from the page's own header."""
    while start < end:
        file.seek(start)
        header = _Thrift(file).struct()
        unpacked, packed = header.get(2), header.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or packed < 0:  # so that it ends
            raise OSError(f"there is no page at byte {start:,}")
        yield unpacked
        start = file.tell() + packed


class _Thrift:
    """As much of Thrift's compact protocol as a footer and the header of a page need."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.left = file, MAX_FOOTER_BYTES

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Field number -> an integer, or whatever else was there."""
        fields, number = dict[int, Any](), 0
        while kind := self._byte():
            step, kind = divmod(kind, 16)
            number = number + step if step else self._integer()
            fields[number] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > 16:
            raise OSError("its metadata is nested too deeply")
        if kind in (1, 2):  # true and false have no bytes of their own
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind == 9:
            return self._list(depth + 1)
        if kind == 12:
            return self.struct(depth + 1)
        raise OSError(f"its metadata has a field of kind {kind}")

    def _list(self, depth: int) -> list[Any]:
        size, kind = divmod(self._byte(), 16)
        size = self._varint() if size == 15 else size
        return [self._byte() if kind in (1, 2) else self._value(kind, depth) for _ in range(size)]

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise OSError("its metadata has a number of more than 64 bits")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise OSError(f"its metadata claims more than {MAX_FOOTER_BYTES:,} bytes")
        content = self.file.read(size)
        if len(content) < size:
            raise OSError("it ends in its metadata")
        return content
