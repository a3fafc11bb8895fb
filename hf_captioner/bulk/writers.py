"""Captions written down as JSON lines, CSV or Parquet, a row an image, so that a killed run can go on.

A row is there whole or not at all. What a run left behind is read when the table is opened again: `done` are the names
that it holds already.
"""

import csv
import io
import json
import os
import uuid
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
from filelock import FileLock, Timeout

from hf_captioner import atomic
from hf_captioner.caption import Caption
from hf_captioner.errors import ConfigError, ImageError

COLUMNS = ("path", "caption", "confidence", "score", "candidates", "error")
"""Of a CSV table; JSON lines and Parquet have `finished` and `words` besides."""
ROWS_PER_PART = 512
"""ParquetShard in a Parquet file: what a kill can cost."""
MAX_TORN_BYTES = 1 << 20
"""Bytes at a table's end that may be what a kill left of a row; more than that is damage."""

Row = dict[str, Any]
CaptionResult = Caption | ImageError


def to_row(name: str, outcome: CaptionResult) -> Row:
    """The path, and the caption as `Caption.to_dict` has it, or the `error`."""
    row: Row = {"path": name}
    if isinstance(outcome, ImageError):
        return {**row, "error": str(outcome)}
    return row | outcome.to_dict()


def _storable(row: Row) -> Row:
    """The row with its texts as every format can hold them."""
    return row | {name: printable(row[name]) for name in ("path", "error") if name in row}


def _texts(row: Row) -> list[str] | None:
    """Of the other captions."""
    return [candidate["caption"] for candidate in row["candidates"]] if "candidates" in row else None


def printable(name: str) -> str:
    """A file's name as text that every format can hold."""
    return name.encode("utf-8", "backslashreplace").decode()


class SeenKeys:
    """Many names in a few bytes each: each may be taken as often as it was put in."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        digests = np.frombuffer(array("Q", map(_digest, names)), dtype=np.uint64)
        self._digests, self._left = np.unique(digests, return_counts=True)

    def __len__(self) -> int:
        return int(self._left.sum())

    def take(self, name: str) -> bool:
        """Whether the name is still here; it is then one time less."""
        digest = np.uint64(_digest(printable(name)))
        at = int(np.searchsorted(self._digests, digest))
        if at == len(self._digests) or self._digests[at] != digest or not self._left[at]:
            return False
        self._left[at] -= 1
        return True


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


class CaptionWriter(Protocol):
    """Where captions are written."""

    @property
    def done(self) -> SeenKeys:
        """The names of what is there already."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises OSError where that fails; what was there before is then still whole."""


class ResumableWriter(ABC):
    """A table on the disk; a context manager. One process at a time may have it open."""

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
        """Read what is there into `done`, and make ready to add to it."""

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
    """A file that rows are added to."""

    _end: int
    """Where the last whole row ends."""

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
            raise _not_written(self.path, error) from error
        self._end = self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _recovered(self) -> Iterator[str]:
        """The names of the rows that are whole; what a kill left behind them is cut off."""
        self._end, size = 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            for name, end in self._whole(file):
                self._end = end
                yield name
        if size - self._end > MAX_TORN_BYTES:
            raise ConfigError(f"{self.path} is damaged after byte {self._end:,}; mend it, or give another --out.")
        self._file.truncate(self._end)

    @abstractmethod
    def _whole(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
        """The name of each whole row, and where it ends."""

    @abstractmethod
    def _encode(self, rows: Sequence[Row]) -> str: ...


class JsonlWriter(AppendWriter):
    def _whole(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                yield json.loads(line)["path"], end
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{self.path} has a line that is no caption's, before byte {end:,}; mend it, or give another --out."
                ) from error

    def _encode(self, rows: Sequence[Row]) -> str:
        return "".join(json.dumps(_storable(row), ensure_ascii=False) + "\n" for row in rows)


class CsvWriter(AppendWriter):
    """COLUMNS, the other captions as a JSON list."""

    def _whole(self, file: IO[bytes]) -> Iterator[tuple[str, int]]:
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
        table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
        if not self._end:
            table.writeheader()
        for row in rows:
            others = json.dumps(_texts(row), ensure_ascii=False) if "candidates" in row else None
            table.writerow({**_storable(row), "candidates": others})
        return text.getvalue()


class ParquetWriter(ResumableWriter):
    """A folder of Parquet files of ROWS_PER_PART rows each, as `datasets`, Spark, DuckDB and pandas read them."""

    def _open(self) -> None:
        self.path.mkdir(exist_ok=True)
        for unfinished in self.path.glob(".*.tmp"):  # what a kill left
            unfinished.unlink()
        self.done, self._rows = self.names_in(self.path), list[Row]()

    def write(self, rows: Sequence[Row]) -> None:
        self._rows += rows
        if len(self._rows) >= ROWS_PER_PART:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            super().close()

    @staticmethod
    def names_in(folder: Path) -> SeenKeys:
        """What the folder's Parquet files hold. Raises ConfigError for one that is damaged."""
        return SeenKeys(_names(folder))

    def _flush(self) -> None:
        rows, self._rows = self._rows, []
        if rows:
            write_part(self.path, uuid.uuid4().hex, rows)


def _not_written(path: Path, error: OSError) -> OSError:
    return OSError(
        f"{path} cannot be written ({error.strerror or error}). What is in it is whole; make room, and the same "
        "command goes on from there."
    )


def write_part(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write a Parquet file of these rows, whole or not at all; one of this name is replaced."""
    import pyarrow
    import pyarrow.parquet

    text, number = pyarrow.string(), pyarrow.float64()
    word = pyarrow.struct({"text": text, "probability": number})
    kinds = {"path": text, "caption": text, "confidence": number, "score": number, "finished": pyarrow.bool_()}
    kinds |= {"words": pyarrow.list_(word), "candidates": pyarrow.list_(text), "error": text}
    plain = [{**_storable(row), "candidates": _texts(row)} for row in rows]
    unfinished = folder / f".{name}.{uuid.uuid4().hex}.tmp"
    try:
        with unfinished.open("wb") as file:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain, pyarrow.schema(kinds)), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, part_of(folder, name))
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        unfinished.unlink(missing_ok=True)


def part_of(folder: Path, name: str) -> Path:
    return folder / f"part-{name}.parquet"


def _names(folder: Path) -> Iterator[str]:
    """What the folder's Parquet files name."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow; pip install 'hf-captioner[bulk]'.") from error
    for part in sorted(folder.glob("part-*.parquet")):
        try:
            with pyarrow.parquet.ParquetFile(part) as file:
                for batch in file.iter_batches(columns=["path"]):
                    yield from batch.column(0).to_pylist()
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{part} is damaged ({error}); remove it, and its rows are written again.") from error


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
    return FORMATS[path.suffix](path, fingerprint)
