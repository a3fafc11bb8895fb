"""The Space as it is pushed: what the Hub wants, and a page that starts where nothing else is."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from huggingface_hub import SpaceCard
from PIL import Image

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.demo.compare import load_captioner, load_error
from hf_captioner.hub.space import push_space
from tests.demo.serving import serving
from tests.hub.standin_hub import StandInHub

SPACE = Path(__file__).resolve().parents[2] / "space"


def test_the_space_has_the_header_and_requirements_that_the_hub_wants() -> None:
    header = SpaceCard.load(SPACE / "README.md").data
    assert (header.sdk, header.app_file) == ("gradio", "app.py")
    assert (SPACE / "app.py").exists() and "image-captioning" in header.tags
    project = tomllib.loads((SPACE.parent / "pyproject.toml").read_text())["project"]
    packages = {*project["dependencies"], *project["optional-dependencies"]["demo"]}
    assert set((SPACE / "requirements.txt").read_text().split()) == packages
    for example in (SPACE / "examples").glob("*.jpg"):
        assert example.name in (SPACE / "examples" / "ATTRIBUTION.md").read_text()
        with Image.open(example) as image:
            assert min(image.size) >= 200


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
def test_a_space_names_the_model_that_it_shows(
    saved_captioner: ImageCaptioner, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandInHub() as hub:
        hub.use(monkeypatch, tmp_path)
        saved_captioner.push_to_hub("me/mine")
        for model, named in (("me/mine", ["me/mine"]), (str(checkpoint), None), (None, None)):
            push_space("me/page", model=model)
            assert SpaceCard(hub.space("me/page").files()["README.md"].decode()).data.models == named


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
def test_a_servers_folders_and_its_owners_models_are_not_compared_and_no_answer_tells_of_them(
    checkpoint: Path, saved_captioner: ImageCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["me/secret", "me/nothing", "checkpoints/mine", "checkpoints/broken", str(checkpoint), "/etc", "me\x00/a"]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, "checkpoints/mine")
    Path("checkpoints/broken").mkdir()
    said = set()
    with StandInHub() as hub:
        hub.use(monkeypatch, tmp_path)
        saved_captioner.push_to_hub("me/secret", private=True)
        saved_captioner.push_to_hub("me/open")
        ImageCaptioner.from_pretrained("me/secret")  # so that it is in the owner's cache
        load_captioner.cache_clear()
        for name in names:
            with pytest.raises(CheckpointError) as error:
                load_captioner(name, folders=False)
            said.add(load_error(name, error.value, folders=False).replace(name, "NAME"))
        assert load_captioner("me/open", folders=False).config == saved_captioner.config
        assert load_captioner(str(checkpoint), folders=True).config == saved_captioner.config
    assert len(said) == 1
    assert not list(tmp_path.rglob("models--me--open")), "a visitor cannot fill the disk with downloads"
    load_captioner.cache_clear()


def test_the_pushed_page_starts_in_a_fresh_environment(
    checkpoint: Path, saved_captioner: ImageCaptioner, image_path: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space"
    with StandInHub() as hub:
        command = [sys.executable, "-m", "hf_captioner", "push-space", "me/page", "--model", str(checkpoint)]
        subprocess.run(command, env=os.environ | hub.environment(tmp_path / "home"), check=True, capture_output=True)
        for name, content in hub.space("me/page").files().items():
            (space / name).parent.mkdir(parents=True, exist_ok=True)
            (space / name).write_bytes(content)
    uv, python = Path(sys.executable).parent / "uv", tmp_path / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    requirements = ["-r", space / "requirements.txt"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *requirements], check=True)
    with serving([str(python), "app.py"], tmp_path, cwd=space) as server:
        answer = Client(server.url, verbose=False).predict(handle_file(image_path), api_name="/caption")
    assert answer["caption"] == saved_captioner.caption(image_path).text
