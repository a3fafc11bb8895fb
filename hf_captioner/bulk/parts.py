"""A folder of Parquet files: a table as `datasets`, Spark, DuckDB and pandas read it, written file by file."""

import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_captioner import atomic
from hf_captioner.bulk.printable import original
from hf_captioner.bulk.results import Row, SeenKeys, candidate_texts, storable, unwritable
from hf_captioner.errors import ConfigError

ROWS_PER_PART = 512
"""Rows of a file: the most that a kill can cost."""


def part_path(folder: Path, name: str) -> Path:
    return folder / f"part-{name}.parquet"


def write_part(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write a Parquet file with these rows, whole or not at all; one of this name is replaced. Raises OSError."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    word = pyarrow.struct({"text": text, "probability": number})
    schema = {
        "path": text,
        "caption": text,
        "confidence": number,
        "score": number,
        "finished": pyarrow.bool_(),
        "words": pyarrow.list_(word),
        "candidates": pyarrow.list_(text),
        "error": text,
    }
    values = [{**storable(row), "candidates": candidate_texts(row)} for row in rows]
    _write_table(folder, name, pyarrow.Table.from_pylist(values, pyarrow.schema(schema)))


def _write_table(folder: Path, name: str, table: Any) -> None:
    import pyarrow.parquet

    def write(path: Path) -> None:
        with path.open("wb") as file:
            pyarrow.parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())

    try:
        atomic.write_file(part_path(folder, name), write)
    except OSError as error:
        raise unwritable(folder, error) from error


def names_and_errors(folder: Path) -> Iterator[tuple[str, str | None]]:
    """The path and the error of each row, as they are stored. Raises ConfigError for a damaged file."""
    for batch in _batches(folder, "path", "error"):
        yield from zip(batch.column("path").to_pylist(), batch.column("error").to_pylist(), strict=True)


def names_in_parts(folder: Path) -> SeenKeys:
    """The names in the `path` column. Raises ConfigError for a damaged file."""
    return SeenKeys(original(name) for batch in _batches(folder, "path") for name in batch.column("path").to_pylist())


def count_rows(folder: Path) -> tuple[int, int]:
    """The images captioned, and those that failed. Raises ConfigError for a damaged file."""
    captioned = failed = 0
    for batch in _batches(folder, "error"):
        errors = batch.column("error")
        captioned += errors.null_count
        failed += len(errors) - errors.null_count
    return captioned, failed


def drop_failures(folder: Path) -> None:
    """Remove the rows of images that failed.

    The file of a shard gets another name first, since one of its own name would say that the shard is done.
    """
    import pyarrow.parquet

    for part in _parts(folder):
        table = pyarrow.parquet.read_table(part)
        errors = table.column("error")
        if errors.null_count < len(errors):
            name = uuid.uuid4().hex
            part.rename(part_path(folder, name))
            if errors.null_count:
                _write_table(folder, name, table.filter(errors.is_null()))
            else:
                part_path(folder, name).unlink()


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _batches(folder: Path, *columns: str) -> Iterator[Any]:
    """These columns of all files, as Arrow record batches."""
    import pyarrow.parquet

    for part in _parts(folder):
        try:
            with pyarrow.parquet.ParquetFile(part) as file:
                yield from file.iter_batches(columns=columns)
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{part} is damaged ({error}); remove it, and its images are captioned again.") from error
