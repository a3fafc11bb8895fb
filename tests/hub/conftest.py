"""The real Hub client in this process against a stand-in Hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from tests.hub.standin_hub import StandInHub


@pytest.fixture
def standin() -> Iterator[StandInHub]:
    with StandInHub() as standin:
        yield standin


@pytest.fixture
def online(standin: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandInHub:
    """The client in this process talks to the stand-in, with an empty cache."""
    standin.use(monkeypatch, tmp_path / "home")
    return standin


@pytest.fixture
def captioner(tiny_captioner: ImageCaptioner, tmp_path: Path) -> ImageCaptioner:
    """One that was loaded, so that its weights are already what float16 can hold."""
    tiny_captioner.save_pretrained(tmp_path / "saved")
    return ImageCaptioner.from_pretrained(tmp_path / "saved")
