"""What fuzzing began with and what it found: each input is read, or refused in one line."""

from pathlib import Path

import pytest

from tests.fuzzing import CORPUS, TARGETS, check

INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


def test_every_target_has_inputs() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_an_input_is_read_or_refused_in_one_line(path: Path) -> None:
    check(path.parent.name, path.read_bytes())
