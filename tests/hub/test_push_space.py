"""A Space gets the page, a checkpoint, and nothing else of the machine; what its owner made of it stays."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.hub import packaged, space
from hf_captioner.hub.checkpoint import CHECKPOINT_FILES
from hf_captioner.hub.evaluation import Evaluation, TrainingSet
from hf_captioner.hub.push import STARTER
from hf_captioner.hub.space import push_space
from tests.hub.standin_hub import Repository, StandInHub

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.mark.parametrize("installed", [False, True])
def test_a_space_gets_the_page_and_the_package_in_one_commit(
    online: StandInHub,
    captioner: ImageCaptioner,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    installed: bool,
) -> None:
    """From a clone, where the page lies beside the package, and from an installed wheel, where it lies inside."""
    package = tmp_path / "hf_captioner"
    beside = package / "_data" if installed else tmp_path
    for path in (beside / "space" / "app.py", beside / "space" / "README.md", beside / "model_card.md"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("---\nsdk: gradio\n---\n")
    captioner.save_pretrained(package / "checkpoint")
    for name in ("__init__.py", "__pycache__/model.pyc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    for module in (packaged, space):
        monkeypatch.setattr(module, "PACKAGE", package)
    push_space("me/page")
    (commit,) = online.space("me/page").commits()
    assert online.space("me/page").sdk == "gradio"
    assert set(commit.files) == {
        "README.md",
        "app.py",
        "hf_captioner/pushed.txt",
        "model_card.md",
        "hf_captioner/__init__.py",
        *(f"hf_captioner/checkpoint/{name}" for name in (set(CHECKPOINT_FILES) - {"evaluation.json", "LICENSE"})),
    }
    assert commit.by_lfs == {"hf_captioner/checkpoint/model.safetensors"}
    (beside / "space" / "app.py").write_text("changed")
    push_space("me/page")
    assert online.space("me/page").files()["app.py"] == b"changed"
    push_space("me/page", model=str(checkpoint))
    pushed = online.space("me/page").files()["hf_captioner/checkpoint/model.safetensors"]
    assert pushed == (checkpoint / "model.safetensors").read_bytes()


def push_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make `push_space` take the page from a copy below this folder, to which a user may add; the package's place."""
    package = folder / "hf_captioner"
    shutil.copytree(packaged.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "training", "checkpoint"))
    for name in ("space", "model_card.md"):
        copy = shutil.copytree if packaged.data_path(name).is_dir() else shutil.copy
        copy(packaged.data_path(name), folder / name)
    for module in (packaged, space):
        monkeypatch.setattr(module, "PACKAGE", package)
    return package


def test_only_what_the_page_needs_is_pushed(
    online: StandInHub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = push_from(tmp_path, monkeypatch)
    push_space("me/page", model=str(checkpoint))
    before = set(online.space("me/page").files())
    browser = {f"hf_captioner/demo/browser/{path.name}" for path in (package / "demo" / "browser").glob("*.*")}
    assert {"app.py", "requirements.txt", "examples/rocket.jpg", *browser} <= before
    secret = tmp_path / "secret"
    secret.write_text("the key to everything")
    for place in (tmp_path / "space", package, package / "demo", tmp_path / "space" / "examples"):
        (place / ".env").write_text("HF_TOKEN=x")
        (place / "notes.txt").write_text("mine")
        (place / "link.txt").symlink_to(secret)
    (package / ".git").mkdir()
    (package / ".git" / "hook.py").write_text("mine")
    push_space("me/page", model=str(checkpoint))
    assert set(online.space("me/page").files()) == before
    (package / "linked.py").symlink_to(secret)
    with pytest.raises(CheckpointError, match=r"linked\.py is a link to a file outside of its folder"):
        push_space("me/page", model=str(checkpoint))


def test_what_its_owner_made_of_a_space_stays(
    online: StandInHub,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    package = push_from(tmp_path, monkeypatch)
    (package / "old.py").write_text("old = True")
    push_space("me/page", model=str(checkpoint))
    page = online.space("me/page")
    assert "hf_captioner/old.py" in page.files()
    edited = page.files()["README.md"].replace(b"title: What", b"title: My own: what")
    page.commit("My own words", {"README.md": edited, "mine.py": b"mine", "hf_captioner/mine.py": b"mine"})
    (package / "old.py").unlink()
    (tmp_path / "space" / "examples" / "rocket.jpg").unlink()
    command = ["push-space", "me/page", "--model", str(checkpoint)]
    assert main(command) == 0
    assert page.files()["README.md"] == edited
    assert "me/page: README.md was written or edited by a person; it is left as it is" in capsys.readouterr().err
    assert {"mine.py", "hf_captioner/mine.py"} <= set(page.files())
    assert not {"hf_captioner/old.py", "examples/rocket.jpg"} & set(page.files())
    assert main([*command, "--overwrite-card"]) == 0
    assert b"My own" not in page.files()["README.md"]


def test_the_readme_that_the_hub_puts_into_a_new_space_is_nobodys(online: StandInHub, checkpoint: Path) -> None:
    starter = f"---\ntitle: Page\nsdk: gradio\n---\n\n{STARTER}\n".encode()
    online.repositories["spaces", "me/page"] = Repository(sdk="gradio")
    online.space("me/page").commit("initial commit", {"README.md": starter})
    push_space("me/page", model=str(checkpoint))
    assert b"What did it look at?" in online.space("me/page").files()["README.md"]


def test_the_card_in_a_space_names_it_and_how_to_load_it(
    online: StandInHub, captioner: ImageCaptioner, image: Image.Image, tmp_path: Path
) -> None:
    captioner.evaluation = Evaluation(
        (TrainingSet("me/birds", 40, 80),), initialized_from="the captioner someone/base", language="de"
    )
    captioner.save_pretrained(tmp_path / "best")
    push_space("page", model=str(tmp_path / "best"))
    card = ModelCard(online.space("me/page").files()["hf_captioner/checkpoint/README.md"].decode())
    assert (card.data.base_model, card.data.datasets, card.data.language) == ("someone/base", ["me/birds"], "de")
    assert card.text.lstrip().startswith("# me/page\n")
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    loading = code.partition("caption =")[0]
    namespace: dict[str, Any] = {}
    exec(loading, namespace)
    assert namespace["captioner"].caption(image).text == captioner.caption(image).text
    captioner.push_to_hub("me/mine")
    push_space("me/page", model="me/mine")
    card = ModelCard(online.space("me/page").files()["hf_captioner/checkpoint/README.md"].decode())
    assert card.text.lstrip().startswith("# me/mine\n") and 'from_pretrained("me/mine")' in card.text
    assert card.data.base_model == "someone/base"
