"""A data set of the Hub is read like a folder, by the real client and the real command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_captioner import iter_images
from hf_captioner.errors import DataError
from hf_captioner.images import open_image
from tests.bulk.archive import data_set, encoded, write_tar
from tests.bulk.test_run import rows_of
from tests.conftest import generated
from tests.hub.standin_hub import StandInHub
from tests.hub.standin_repository import Repository

SOURCE = "hf://datasets/me/animals"


@pytest.fixture
def hub(tmp_path: Path) -> StandInHub:
    hub = StandInHub()
    data_set(2).to_parquet(tmp_path / "table.parquet")
    files = {
        "README.md": b"never fetched",
        "data/train-00000.parquet": (tmp_path / "table.parquet").read_bytes(),
        "more/0.PNG": encoded(0, "PNG"),
        "shard.tar": write_tar(tmp_path / "shard.tar", 2).read_bytes(),
        "video.mp4": b"never fetched",
    }
    repository = hub.repositories["datasets", "me/animals"] = Repository()
    repository.commit("Add images", files)
    repository.branches["small"] = []
    repository.commit("One image", {"only.png": encoded(3, "PNG")}, revision="small")
    return hub


def test_its_files_are_downloaded_once_and_read(
    hub: StandInHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub:
        hub.use(monkeypatch, tmp_path)
        for _ in range(2):
            images = list(iter_images(SOURCE))
            names = [image.name.partition("/snapshots/")[2].partition("/")[2] for image in images]
            assert names == [
                "data/train-00000.parquet#0",
                "data/train-00000.parquet#1",
                "more/0.PNG",
                "shard.tar/000000.jpg",
                "shard.tar/000001.jpg",
            ]
            assert open_image(images[2].image).tobytes() == generated(0).tobytes()  # type: ignore[arg-type]
        fetched = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
        assert len(fetched) == 3 and not [path for path in fetched if path.endswith((".md", ".mp4"))]
        [only] = iter_images(f"{SOURCE}@small")
        assert Path(only.name).name == "only.png"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hf://datasets/me/gone", "nor a repository on the Hub"),
        (f"{SOURCE}@gone", "no such revision"),
        ("hf://datasets/animals", r"expected hf://datasets/OWNER/NAME"),
        ("hf://me/animals", r"expected hf://datasets/OWNER/NAME"),
    ],
)
def test_what_cannot_be_downloaded_is_said(
    hub: StandInHub, source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub:
        hub.use(monkeypatch, tmp_path)
        with pytest.raises(DataError, match=reason) as raised:
            list(iter_images(source))
    assert str(raised.value).startswith(source)


def test_by_the_real_command(hub: StandInHub, checkpoint: Path, tmp_path: Path) -> None:
    out, environment = tmp_path / "captions.jsonl", os.environ | hub.environment(tmp_path / "home")

    def caption(source: str) -> subprocess.CompletedProcess[str]:
        """Not forked: the client reads its environment when it is imported."""
        command = [sys.executable, "-m", "hf_captioner", "caption", source, "--model", checkpoint, "--out", out]
        return subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=120)

    with hub:
        done = caption(SOURCE)
        assert done.returncode == 0, done.stderr
        assert len([row for row in rows_of(out) if row["caption"]]) == 5
        done = caption("hf://datasets/me/gone")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "hf://datasets/me/gone: " in done.stderr
