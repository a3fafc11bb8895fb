"""What is written: a row for each image, and the names of the images whose rows are there."""

from array import array
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from hf_captioner.caption import Caption
from hf_captioner.errors import ImageError

Row = dict[str, Any]
CaptionResult = Caption | ImageError


def to_row(name: str, result: CaptionResult) -> Row:
    """The path, and the caption as `Caption.to_dict` has it, or the `error`."""
    return {"path": name, "error": str(result)} if isinstance(result, ImageError) else {"path": name} | result.to_dict()


def storable(row: Row) -> Row:
    """The row with the path and the error as every format can hold them."""
    return row | {name: printable(row[name]) for name in ("path", "error") if name in row}


def printable(name: str) -> str:
    """A file's name as text; a byte that is not UTF-8 becomes an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def candidate_texts(row: Row) -> list[str] | None:
    """The texts of all captions, best first; None where there is only one."""
    return [candidate["caption"] for candidate in row["candidates"]] if "candidates" in row else None


class SeenKeys:
    """A multiset of names, kept as 64-bit hashes; `take` removes one occurrence."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        hashes = np.frombuffer(array("Q", map(_hash, names)), dtype=np.uint64)
        self._hashes, self._counts = np.unique(hashes, return_counts=True)

    def __len__(self) -> int:
        return int(self._counts.sum())

    def take(self, name: str) -> bool:
        """Whether the name was there."""
        key = np.uint64(_hash(printable(name)))
        index = int(np.searchsorted(self._hashes, key))
        if index == len(self._hashes) or self._hashes[index] != key or not self._counts[index]:
            return False
        self._counts[index] -= 1
        return True


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def unwritable(table: Path, error: OSError) -> OSError:
    return OSError(
        f"{table} cannot be written ({error.strerror or error}); its rows are whole: make room, and the same command "
        "continues from there."
    )
