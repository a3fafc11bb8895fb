"""An empty cache for exports, and a checkpoint that was exported."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner


@pytest.fixture
def own_cache(no_measurements_of_other_tests: Path) -> Path:
    """Where this test's exports are kept."""
    return no_measurements_of_other_tests


@pytest.fixture(scope="session")
def exported_once(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "checkpoint"
    shutil.copytree(checkpoint, folder)
    ImageCaptioner.from_pretrained(folder, backend="torch").export_onnx(folder)
    return folder


@pytest.fixture
def exported(exported_once: Path, own_cache: Path, tmp_path: Path) -> Iterator[Path]:
    """A tiny checkpoint's folder with its export, to write into."""
    yield shutil.copytree(exported_once, tmp_path / "exported")
