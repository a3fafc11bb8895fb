"""What every table of captions does that a run continues after any stop, whatever its format.

A row is there whole or not at all. A table that is opened again reads what an earlier run left: `done` are the names of
the images that it holds. Where the failures among them are to be tried again, their rows wait in a file beside the
table until others have come in their place; so at any moment no image is in the table twice, and no failure is lost.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from hf_captioner import atomic
from hf_captioner.bulk.parts import ROWS_PER_PART
from hf_captioner.bulk.results import Row, SeenKeys, as_given, containers, is_failure, json_lines
from hf_captioner.errors import ConfigError


class ResumableWriter(ABC):
    """A table on disk, a context manager. One process at a time may have it open."""

    done: SeenKeys
    failed: int

    def __init__(self, path: Path, fingerprint: dict[str, Any], *, retry_failed: bool = False) -> None:
        self.path = path
        self._aside = path.with_name(f"{path.name}.retry")
        """Rows of failures that are being tried again, as JSON lines."""
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
        try:
            if retry_failed:
                self._set_failures_aside()
            self._learn()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def write(self, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def _open(self) -> None:
        """Make the table where there is none, and get ready to add rows."""

    @abstractmethod
    def _stored(self) -> Iterator[Row]:
        """Each row that is there, with at least its path and, for a failure, the error. What a kill left is removed."""

    @abstractmethod
    def _drop_failures(self) -> None:
        """Remove the rows of failures; a kill meanwhile leaves each of the others once."""

    def flush(self) -> None:  # noqa: B027  # most tables keep nothing back
        """Write the rows that `write` has kept back."""

    def finish(self) -> int:
        put_back = 0
        if self._aside.exists():
            self.flush()
            missing = self._not_replaced()
            while rows := list(islice(missing, ROWS_PER_PART)):
                self.write(rows)
                put_back += len(rows)
            self.flush()
            self._aside.unlink()
        return put_back

    def _learn(self) -> None:
        """Read what is there into `done` and `failed`."""
        self.failed = 0

        def names() -> Iterator[str]:
            for row in self._stored():
                self.failed += is_failure(row)
                yield row["path"]

        self.done = SeenKeys(names())

    def _set_failures_aside(self) -> None:
        """Move the failures into the file beside the table, after those that an earlier run has left there."""

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8") as file:
                file.write(json_lines(self._not_replaced()))
                file.write(json_lines(row for row in self._stored() if is_failure(row)))
                file.flush()
                os.fsync(file.fileno())

        atomic.write_file(self._aside, write)
        self._drop_failures()

    def _not_replaced(self) -> Iterator[Row]:
        """The rows set aside for which the table has none, of the same image or of one inside it (`a.tar/b.jpg`)."""
        waiting = SeenKeys(row["path"] for row in self._rows_aside())
        for row in self._stored() if len(waiting) else ():
            for name in (row["path"], *containers(row["path"])):
                waiting.take(name)
        return (row for row in self._rows_aside() if waiting.take(row["path"]))

    def _rows_aside(self) -> Iterator[Row]:
        if self._aside.exists():
            with self._aside.open(encoding="utf-8") as file:
                yield from (as_given(json.loads(line)) for line in file)

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
