"""An empty cache for exports, and a checkpoint that was exported."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.onnx import cache


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where this test's exports are kept."""
    place = tmp_path / "assets"

    place.mkdir()
    monkeypatch.setattr(cache, "cache_folder", lambda key: place / key)
    return place


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
