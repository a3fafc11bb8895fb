"""Tables of captions as JSON lines, CSV or Parquet, a row for each image; what they share is in `resumable.py`."""

import csv
import json
import os
import uuid
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from hf_captioner import atomic
from hf_captioner.bulk.parts import ROWS_PER_PART, drop_failures, names_and_errors, write_part
from hf_captioner.bulk.printable import from_csv_cell, original
from hf_captioner.bulk.results import (
    CSV_COLUMNS,
    Row,
    as_given,
    csv_lines,
    is_failure,
    json_lines,
    unwritable,
)
from hf_captioner.bulk.resumable import ResumableWriter
from hf_captioner.errors import ConfigError, require_extra

MAX_TORN_BYTES = 1 << 20
"""The most that a kill can leave of a row at a table's end; more than that is damage."""


class AppendWriter(ResumableWriter):
    """A file to which rows are appended."""

    _end: int
    """The byte at which the last whole row ends."""

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)

    def write(self, rows: Sequence[Row]) -> None:
        data = memoryview(self._encode(rows).encode())
        try:
            while data:
                data = data[self._file.write(data) or 0 :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._end)
            raise unwritable(self.path, error) from error
        self._end = self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _stored(self) -> Iterator[Row]:
        """What a kill left after the whole rows is cut off."""
        self._end, size = 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            for row, end in self._whole_rows(file):
                self._end = end
                if row is not None:
                    yield row
        if size - self._end > MAX_TORN_BYTES:
            raise ConfigError(f"{self.path} is damaged after byte {self._end:,}; repair it, or give another --out.")
        self._file.truncate(self._end)

    def _drop_failures(self) -> None:
        def write(path: Path) -> None:
            with self.path.open("rb") as rows, self.path.open("rb") as source, path.open("wb") as kept:
                for row, end in self._whole_rows(rows):
                    encoded = source.read(end - source.tell())
                    if row is None or not is_failure(row):
                        kept.write(encoded)
                kept.flush()
                os.fsync(kept.fileno())

        self._file.close()
        atomic.write_file(self.path, write)
        self._open()

    def _no_row(self, end: int) -> ConfigError:
        return ConfigError(
            f"{self.path} has a line that is not a row, before byte {end:,}; repair it, or give another --out."
        )

    @abstractmethod
    def _whole_rows(self, file: IO[bytes]) -> Iterator[tuple[Row | None, int]]:
        """Each whole row, None for a header, and the byte at which it ends. Raises ConfigError for what is no row."""

    @abstractmethod
    def _encode(self, rows: Sequence[Row]) -> str: ...


class JsonlWriter(AppendWriter):
    def _whole_rows(self, file: IO[bytes]) -> Iterator[tuple[Row | None, int]]:
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._no_row(end) from error
            if not isinstance(row, dict) or not isinstance(row.get("path"), str):
                raise self._no_row(end)
            yield as_given(row), end

    def _encode(self, rows: Sequence[Row]) -> str:
        return json_lines(rows)


class CsvWriter(AppendWriter):
    def _whole_rows(self, file: IO[bytes]) -> Iterator[tuple[Row | None, int]]:
        end, whole = 0, False

        def lines() -> Iterator[str]:
            nonlocal end, whole
            for line in file:
                end, whole = end + len(line), line.endswith(b"\n")
                yield line.decode("utf-8", "replace")

        try:
            for number, record in enumerate(csv.reader(lines(), strict=True)):
                if not whole:
                    return
                if len(record) != len(CSV_COLUMNS) or (number == 0 and record != list(CSV_COLUMNS)):
                    raise self._no_row(end)
                row = {"path": from_csv_cell(record[0]), "error": from_csv_cell(record[-1])}
                yield (row if number else None), end
        except csv.Error:  # a quote that a kill left open
            return

    def _encode(self, rows: Sequence[Row]) -> str:
        return csv_lines(rows, header=not self._end)


class ParquetWriter(ResumableWriter):
    """A folder of Parquet files of ROWS_PER_PART rows each."""

    def _open(self) -> None:
        self.path.mkdir(exist_ok=True)
        for unfinished in self.path.glob(".*.tmp"):  # what a kill left
            unfinished.unlink()
        self._rows = list[Row]()

    def _stored(self) -> Iterator[Row]:
        return ({"path": original(path), "error": error} for path, error in names_and_errors(self.path))

    def _drop_failures(self) -> None:
        drop_failures(self.path)

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= ROWS_PER_PART:
            self.flush()

    def flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            write_part(self.path, uuid.uuid4().hex, rows)

    def close(self) -> None:
        try:
            self.flush()
        finally:
            super().close()


FORMATS: dict[str, type[ResumableWriter]] = {".jsonl": JsonlWriter, ".csv": CsvWriter, ".parquet": ParquetWriter}


def open_writer(path: Path, fingerprint: dict[str, Any], *, retry_failed: bool = False) -> ResumableWriter:
    """The table at this path, new or continued; the suffix says the format. fingerprint: what its rows depend on, JSON.

    retry_failed: images that failed are not `done`, so that they are read again. Raises ConfigError for a suffix not in
    FORMATS, and for a table that has another fingerprint, is being written by another process or is damaged.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"--out is {path}; expected a name that ends in {', '.join(FORMATS)}.")
    if path.suffix == ".parquet":
        require_extra("A Parquet table", "bulk", "pyarrow")
    return FORMATS[path.suffix](path, fingerprint, retry_failed=retry_failed)
