"""Training without what follows it, a machine without Java, whose start takes longer than all else, and small data."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hf_captioner.training.finish import Finish
from tests.conftest import write_table


@pytest.fixture(scope="module")
def only_training() -> Iterator[None]:
    """`hf-captioner train` ends with the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finish, "before", lambda self, init: 0.0)
        patch.setattr(Finish, "run", lambda self: None)
        yield


@pytest.fixture(scope="module")
def no_java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("bin")))
        assert shutil.which("java") is None
        yield


def data_set(folder: Path, splits: Sequence[str], each: int = 1) -> Path:
    folder.mkdir(parents=True)
    write_table(folder, splits, each=each)
    return folder


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("a") / "photos", ["train"] * 8 + ["validation"] * 4, each=3)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder of the same name."""
    folder = data_set(tmp_path_factory.mktemp("b") / "photos", ["train"] * 4 + ["validation"] * 3 + ["test"])
    table = folder / "captions.csv"
    table.write_text(table.read_text().replace(".png,A ", ".png,The "))
    return folder
