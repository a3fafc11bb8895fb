"""A file is replaced whole or stays as it was, and nothing temporary is left."""

from pathlib import Path

import pytest

from hf_captioner.atomic import write_files, write_text


def test_a_failure_leaves_every_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def fail(path: Path) -> None:
        path.write_text("half of it")
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_files(tmp_path, {"a": lambda path: path.write_text("new"), "b": fail})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_a_folder_is_made_where_it_is_missing(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a", "text")
    assert (tmp_path / "new" / "folder" / "a").read_text() == "text"
