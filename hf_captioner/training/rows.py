"""The rows of a data set: what they may hold, and how their faults are told."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hf_captioner.errors import DataError, one_line

SPLITS = {
    "train": "train",
    "restval": "train",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""The names that data sets give their splits -> ours."""

Row = tuple[str, str, str | None]
"""An image's name as the data set writes it, one caption, and its split where the data says one."""

MAX_CAPTION = 10_000
"""Characters; more is a mistake, such as a table whose quotes do not match."""


def read_text(file: Path) -> str:
    """A UTF-8 file. Raises DataError."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}.") from error


def split_named(name: str, file: Path) -> str:
    """The split that a data set calls `name`. Raises DataError."""
    if not isinstance(name, str) or name not in SPLITS:
        raise DataError(f"{file} has the split {shortened(name)!r}; expected one of {', '.join(SPLITS)}.")
    return SPLITS[name]


def split_in(stem: str) -> str | None:
    """The split that a file's name names: Flickr_8k.trainImages, captions_val2017."""
    return next((split for word, split in SPLITS.items() if word in stem.lower()), None)


def complain(what: str, names: Iterable[Any], remedy: str) -> None:
    """Raise DataError where there are any: what is wrong with them, their count, the first ten, and what to do."""
    faults = sorted(names)
    if faults:
        raise DataError(f"The data has {what} ({len(faults)}): {listed(faults)}; {remedy}.")


def counted(number: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(names: Iterable[Any]) -> str:
    """The first ten of some names, as they may be printed: a data set's may hold anything."""
    first = list(itertools.islice(names, 11))
    return ", ".join([*map(shortened, first[:10]), *(["..."] if len(first) > 10 else [])])


def shortened(name: Any) -> str:
    """A name as it may be printed: short, on one line, without control characters."""
    text = one_line(str(name))
    return text if len(text) <= 100 else f"{text[:97]}..."
