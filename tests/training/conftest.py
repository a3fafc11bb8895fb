"""Training without what follows it, and a machine without Java, whose start takes longer than all else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_captioner.training.finish import Finish


@pytest.fixture
def only_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hf-captioner train` ends with the training."""
    monkeypatch.setattr(Finish, "before", lambda self, init: 0.0)
    monkeypatch.setattr(Finish, "run", lambda self: None)


@pytest.fixture
def no_java(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    empty = tmp_path_factory.mktemp("bin")
    monkeypatch.setenv("PATH", str(empty))
    assert shutil.which("java") is None
    yield empty
