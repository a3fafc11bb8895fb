"""Files that are there whole or not at all: written under a temporary name first, then moved into place."""

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

Writer = Callable[[Path], object]
"""Writes a file at the path that it is given."""


def write_files(folder: Path, writers: Mapping[str, Writer]) -> None:
    """Write every file (name -> writer) before the first is moved into place, so that a full disk leaves the old ones.

    Raises OSError where the folder or a file cannot be written; no temporary file is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.{uuid.uuid4().hex}.tmp" for name in writers}
    try:
        for name, write in writers.items():
            write(temporary[name])
        for name, path in temporary.items():
            os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def write_file(path: Path, writer: Writer) -> None:
    """`write_files` for a single file."""
    write_files(path.parent, {path.name: writer})


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a process that was killed; for folders that only one process writes into."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
