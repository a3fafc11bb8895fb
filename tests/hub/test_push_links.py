"""Nothing of the machine is published that was not meant: no link that leaves a folder, no file that is too large."""

import os
import shutil
from pathlib import Path

import pytest

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.hub.checkpoint import MAX_BYTES
from hf_captioner.hub.push import push_folder
from hf_captioner.hub.space import push_space
from tests.hub.standin_hub import StandInHub

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SECRET = "the key to everything"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text(SECRET)
    return tmp_path / "secret"


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "mine"))


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", ["LICENSE", "README.md"])
@pytest.mark.parametrize("relative", [False, True])
def test_a_text_that_is_a_link_to_elsewhere_is_refused(folder: Path, secret: Path, name: str, relative: bool) -> None:
    replace_by_link(folder / name, Path("..", secret.name) if relative else secret)
    with pytest.raises(CheckpointError, match=rf"{name} is a link to a file outside of its folder; put the file"):
        ImageCaptioner.from_pretrained(folder)


def test_a_link_within_the_folder_or_to_the_folder_is_its_own(folder: Path, tmp_path: Path) -> None:
    (folder / "TERMS").write_text("Terms.\n")
    replace_by_link(folder / "LICENSE", Path("TERMS"))
    (tmp_path / "named").symlink_to(folder)
    assert ImageCaptioner.from_pretrained(tmp_path / "named").weights_license == "Terms.\n"


def test_what_was_loaded_from_the_cache_can_be_pushed_and_shown(
    online: StandInHub, captioner: ImageCaptioner, tmp_path: Path
) -> None:
    captioner.weights_license, captioner.card = "Terms.\n", "---\nlanguage: en\n---\nMine.\n"
    captioner.push_to_hub("me/mine")
    loaded = ImageCaptioner.from_pretrained("me/mine")
    (snapshot,) = (tmp_path / "home" / "hub" / "models--me--mine" / "snapshots").iterdir()
    assert (snapshot / "LICENSE").is_symlink()
    loaded.push_to_hub("me/copy")
    push_space("me/page", model="me/mine")
    push_space("me/page", model=str(snapshot))
    ImageCaptioner.from_pretrained(snapshot).push_to_hub("me/again")
    for files, where in (
        (online.model("me/copy").files(), ""),
        (online.model("me/again").files(), ""),
        (online.space("me/page").files(), "hf_captioner/checkpoint/"),
    ):
        assert (files[f"{where}LICENSE"], files[f"{where}README.md"]) == (b"Terms.\n", captioner.card.encode())


def test_a_blob_that_is_itself_a_link_out_of_the_cache_is_refused(
    online: StandInHub, captioner: ImageCaptioner, secret: Path, tmp_path: Path
) -> None:
    captioner.weights_license = "Terms.\n"
    captioner.push_to_hub("me/mine")
    ImageCaptioner.from_pretrained("me/mine")
    (snapshot,) = (tmp_path / "home" / "hub" / "models--me--mine" / "snapshots").iterdir()
    replace_by_link((snapshot / "LICENSE").resolve(), secret)
    with pytest.raises(CheckpointError, match="outside of its folder"):
        ImageCaptioner.from_pretrained(snapshot)


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer.json", "config.json"])
def test_a_space_gets_no_link_to_elsewhere(online: StandInHub, folder: Path, tmp_path: Path, name: str) -> None:
    if (folder / name).exists():
        shutil.move(folder / name, tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").write_text(SECRET)
    replace_by_link(folder / name, tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"{name} is a link to a file outside of its folder"):
        push_space("me/page", model=str(folder))
    assert ("spaces", "me/page") not in online.repositories


def test_no_folder_is_pushed_with_a_link_that_leaves_it(online: StandInHub, secret: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("---\n---\n")
    (tmp_path / "out" / "notes").symlink_to(secret)
    with pytest.raises(CheckpointError, match=r"notes is a link to a file outside of its folder"):
        push_folder(tmp_path / "out", "me/mine", commit_message="Push")
    assert online.model("me/mine").commits() == []


@pytest.mark.parametrize("name", [name for name in MAX_BYTES if name not in ("tokenizer.json", "model.safetensors")])
def test_a_file_that_is_too_large_is_not_read_from_a_folder(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.truncate(300_000_000)
    with pytest.raises(CheckpointError, match=rf"{name} has 300,000,000 bytes; a captioner's has at most 1,048,576\."):
        ImageCaptioner.from_pretrained(folder)


def test_a_card_that_is_too_large_is_neither_read_nor_lost(
    online: StandInHub, captioner: ImageCaptioner, folder: Path
) -> None:
    with (folder / "README.md").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(CheckpointError, match=r"README\.md has 300,000,000 bytes"):
        captioner.save_pretrained(folder)
    assert (folder / "README.md").stat().st_size == 300_000_000
    captioner.push_to_hub("me/mine")
    online.model("me/mine").commit("much", {"README.md": b"x" * ((1 << 20) + 1)})
    online.requests.clear()
    captioner.push_to_hub("me/mine")
    assert len(online.model("me/mine").files()["README.md"]) == (1 << 20) + 1
    assert ("GET", "/me/mine/resolve/main/README.md") not in online.requests


def test_what_is_no_file_is_not_waited_for(folder: Path) -> None:
    for name in ("generation_config.json", "LICENSE"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    assert ImageCaptioner.from_pretrained(folder).weights_license is None
