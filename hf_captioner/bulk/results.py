"""What is written: a row for each image, and the names of the images whose rows are there."""

import csv
import io
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hf_captioner.bulk.printable import csv_cell, json_line, original, printable
from hf_captioner.caption import Caption
from hf_captioner.errors import ImageError

CSV_COLUMNS = ("path", "caption", "confidence", "score", "candidates", "error")
"""JSON lines and Parquet have `finished` and `words` besides."""
Row = dict[str, Any]
CaptionResult = Caption | ImageError


def to_row(name: str, result: CaptionResult) -> Row:
    """The path, and the caption as `Caption.to_dict` has it, or the `error`."""
    return {"path": name, "error": str(result)} if isinstance(result, ImageError) else {"path": name} | result.to_dict()


def storable(row: Row) -> Row:
    """The row with the path and the error as every format can hold them."""
    return row | {name: printable(row[name]) for name in ("path", "error") if name in row}


def as_given(row: Row) -> Row:
    """The row that `storable` made this of."""
    return row | {name: original(row[name]) for name in ("path", "error") if name in row}


def is_failure(row: Row) -> bool:
    """Whether the row is that of an image without a caption."""
    return bool(row.get("error"))


def containers(name: str) -> list[str]:
    """What an image may be inside of, by its name: of `a/b.tar/c.jpg` `a` and `a/b.tar`, of `t.parquet#7` the table."""
    return [name[:end] for end, character in enumerate(name) if character in "/#"]


def candidate_texts(row: Row) -> list[str] | None:
    """The texts of all captions, best first; None where there is only one."""
    return [candidate["caption"] for candidate in row["candidates"]] if "candidates" in row else None


def json_lines(rows: Iterable[Row]) -> str:
    """A JSON object a line."""
    return "".join(json_line(storable(row)) for row in rows)


def csv_lines(rows: Iterable[Row], *, header: bool = False) -> str:
    """CSV_COLUMNS of the rows, the candidates as a JSON list; texts as `csv_cell` has them."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    if header:
        table.writerow(CSV_COLUMNS)
    for row in rows:
        candidates = candidate_texts(row)
        cells: Row = {name: csv_cell(row[name]) for name in ("path", "caption", "error") if name in row}
        cells["candidates"] = None if candidates is None else json_line(candidates).rstrip("\n")
        table.writerow((row | cells).get(name) for name in CSV_COLUMNS)
    return text.getvalue()


class SeenKeys:
    """A multiset of names, kept as 64-bit hashes; `take` removes one occurrence."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        hashes = np.frombuffer(array("Q", map(_hash, names)), dtype=np.uint64)
        self._hashes, self._counts = np.unique(hashes, return_counts=True)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def take(self, name: str) -> bool:
        """Whether the name was there."""
        key = np.uint64(_hash(name))
        index = int(np.searchsorted(self._hashes, key))
        if index == len(self._hashes) or self._hashes[index] != key or not self._counts[index]:
            return False
        self._counts[index] -= 1
        return True


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class CaptionWriter(Protocol):
    """Where captions are written."""

    @property
    def done(self) -> SeenKeys:
        """The names of the images whose rows were there before."""

    @property
    def failed(self) -> int:
        """How many of them are failures."""

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows. Raises OSError where that fails; the rows from before are then still whole."""

    def finish(self) -> int:
        """To be called once every image was read. Failures that were to be tried again and were not among the images
        get their rows back; returns how many."""


def unwritable(table: Path, error: OSError) -> OSError:
    return OSError(
        f"{table} cannot be written ({error.strerror or error}); its rows are whole: make room, and the same command "
        "continues from there."
    )
