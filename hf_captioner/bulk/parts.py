"""A folder of Parquet files: a table as `datasets`, Spark, DuckDB and pandas read it, written file by file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_captioner import atomic
from hf_captioner.bulk.results import Row, SeenKeys, candidate_texts, storable, unwritable
from hf_captioner.errors import ConfigError

ROWS_PER_PART = 512
"""Rows of a file: the most that a kill can cost."""


def part_path(folder: Path, name: str) -> Path:
    return folder / f"part-{name}.parquet"


def write_part(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write a Parquet file with these rows, whole or not at all; one of this name is replaced. Raises OSError."""
    import pyarrow
    import pyarrow.parquet

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
    table = pyarrow.Table.from_pylist(values, pyarrow.schema(schema))

    def write(path: Path) -> None:
        with path.open("wb") as file:
            pyarrow.parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())

    try:
        atomic.write_file(part_path(folder, name), write)
    except OSError as error:
        raise unwritable(folder, error) from error


def names_in_parts(folder: Path) -> SeenKeys:
    """The names in the `path` column. Raises ConfigError for a damaged file."""
    return SeenKeys(name for batch in _batches(folder, "path") for name in batch.to_pylist())


def count_rows(folder: Path) -> tuple[int, int]:
    """The images captioned, and those that failed. Raises ConfigError for a damaged file."""
    captioned = failed = 0
    for errors in _batches(folder, "error"):
        captioned += errors.null_count
        failed += len(errors) - errors.null_count
    return captioned, failed


def _batches(folder: Path, column: str) -> Iterator[Any]:
    """A column of all files, as Arrow arrays."""
    import pyarrow.parquet

    for part in sorted(folder.glob("part-*.parquet")):
        try:
            with pyarrow.parquet.ParquetFile(part) as file:
                for batch in file.iter_batches(columns=[column]):
                    yield batch.column(0)
        except (OSError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{part} is damaged ({error}); remove it, and its images are captioned again.") from error
