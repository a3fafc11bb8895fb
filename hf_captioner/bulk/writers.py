"""Tables of captions as JSON lines, CSV or Parquet, a row for each image, which a run continues after any stop.

A row is there whole or not at all. A table that is opened again reads what an earlier run left: `done` are the names of
the images that it holds.
"""

import csv
import io
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from filelock import FileLock, Timeout

from hf_captioner import atomic
from hf_captioner.bulk.parts import ROWS_PER_PART, names_in_parts, write_part
from hf_captioner.bulk.results import Row, SeenKeys, candidate_texts, storable, unwritable
from hf_captioner.errors import ConfigError, require_extra

CSV_COLUMNS = ("path", "caption", "confidence", "score", "candidates", "error")
"""JSON lines and Parquet have `finished` and `words` besides."""
MAX_TORN_BYTES = 1 << 20
"""The most that a kill can leave of a row at a table's end; more than that is damage."""


class CaptionWriter(Protocol):
    """Where captions are written."""

    @property
    def done(self) -> SeenKeys:
        """The names of the images whose rows were there before."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises OSError where that fails; the rows from before are then still whole."""


class ResumableWriter(ABC):
    """A table on disk, a context manager. One process at a time may have it open."""

    done: SeenKeys

    def __init__(self, path: Path, fingerprint: dict[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ConfigError(f"Another run is writing {path}; wait for it, or give another --out.") from error
        try:
            self._claim(fingerprint)
            self._open()
        except BaseException:
            self._lock.release()
            raise

    @abstractmethod
    def write(self, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def _open(self) -> None:
        """Read the names of the rows that are there into `done`, and get ready to add others."""

    def close(self) -> None:
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _claim(self, fingerprint: dict[str, Any]) -> None:
        """Check that the table is this run's, by the fingerprint that lies beside it; write that for a new table."""
        path = self.path.with_name(f"{self.path.name}.job")
        if path.exists():
            differing = _differing(path, fingerprint)
            if differing:
                raise ConfigError(
                    f"{self.path} was begun with another {', '.join(differing)} (see {path}); give another --out, or "
                    "delete both to start over."
                )
        elif self.path.exists():
            raise ConfigError(f"{self.path} exists and is not an earlier run's; give another --out.")
        else:
            atomic.write_text(path, json.dumps(fingerprint, indent=1, ensure_ascii=False))


def _differing(path: Path, fingerprint: dict[str, Any]) -> list[str]:
    """The keys in which the fingerprint in a file differs from this one, as `generation_config.num_beams`."""
    try:
        stored = _flat(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError):
        stored = {}
    own = _flat(json.loads(json.dumps(fingerprint)))
    return [name for name in {**own, **stored} if own.get(name) != stored.get(name)]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


class AppendWriter(ResumableWriter):
    """A file to which rows are appended."""

    _end: int
    """The byte at which the last whole row ends."""

    def _open(self) -> None:
        self._file = self.path.open("ab", buffering=0)
        try:
            self.done = SeenKeys(self._recovered())
        except BaseException:
            self._file.close()
            raise

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

    def _recovered(self) -> Iterator[str]:
        """The names of the whole rows; what a kill left after them is cut off."""
        self._end, size = 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            for name, end in self._whole_rows(file):
                self._end = end
                yield name
        if size - self._end > MAX_TORN_BYTES:
            raise ConfigError(f"{self.path} is damaged after byte {self._end:,}; repair it, or give another --out.")
        self._file.truncate(self._end)

    @abstractmethod
    def _whole_rows(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
        """The name of each whole row, and the byte at which it ends."""

    @abstractmethod
    def _encode(self, rows: Sequence[Row]) -> str: ...


class JsonlWriter(AppendWriter):
    def _whole_rows(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield json.loads(line)["path"], end
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{self.path} has a line that is not a row, before byte {end:,}; repair it, or give another --out."
                ) from error

    def _encode(self, rows: Sequence[Row]) -> str:
        return "".join(json.dumps(storable(row), ensure_ascii=False) + "\n" for row in rows)


class CsvWriter(AppendWriter):
    """CSV_COLUMNS, the candidates as a JSON list."""

    def _whole_rows(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
        end, whole = 0, False

        def lines() -> Iterator[str]:
            nonlocal end, whole
            for line in file:
                end, whole = end + len(line), line.endswith(b"\n")
                yield line.decode("utf-8", "replace")

        try:
            for number, record in enumerate(csv.reader(lines(), strict=True)):
                if whole and number:
                    yield record[0], end
        except csv.Error:  # a quote that a kill left open
            return

    def _encode(self, rows: Sequence[Row]) -> str:
        text = io.StringIO()
        table = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        if not self._end:
            table.writeheader()
        for row in rows:
            candidates = candidate_texts(row)
            cell = None if candidates is None else json.dumps(candidates, ensure_ascii=False)
            table.writerow({**storable(row), "candidates": cell})
        return text.getvalue()


class ParquetWriter(ResumableWriter):
    """A folder of Parquet files of ROWS_PER_PART rows each."""

    def _open(self) -> None:
        self.path.mkdir(exist_ok=True)
        for unfinished in self.path.glob(".*.tmp"):  # what a kill left
            unfinished.unlink()
        self.done, self._rows = names_in_parts(self.path), list[Row]()

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= ROWS_PER_PART:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            super().close()

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            write_part(self.path, uuid.uuid4().hex, rows)


FORMATS: dict[str, Callable[[Path, dict[str, Any]], ResumableWriter]] = {
    ".jsonl": JsonlWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
}


def open_writer(path: Path, fingerprint: dict[str, Any]) -> ResumableWriter:
    """The table at this path, new or continued; the suffix says the format. fingerprint: what its rows depend on, JSON.

    Raises ConfigError for a suffix not in FORMATS, and for a table that has another fingerprint, is being written by
    another process or is damaged.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"--out is {path}; expected a name that ends in {', '.join(FORMATS)}.")
    if path.suffix == ".parquet":
        require_extra("A Parquet table", "bulk", "pyarrow")
    return FORMATS[path.suffix](path, fingerprint)
