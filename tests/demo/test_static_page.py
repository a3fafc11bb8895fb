"""The page as a folder: what is in it, and how it comes to a host."""

import hashlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import SpaceCard

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.demo.markup import EXAMPLES
from hf_captioner.demo.static_page import write_static_page
from hf_captioner.errors import CaptionerError, MissingExtraError
from hf_captioner.hub.packaged import data_path
from hf_captioner.hub.space import push_static_space
from hf_captioner.onnx import web_runtime
from tests.hub.standin_hub import StandInHub


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_lists_all_that_it_holds(static_page: Path) -> None:
    files = files_of(static_page)
    listed = json.loads(files.pop("files.json"))["files"]
    assert listed.keys() == files.keys()
    for name, content in files.items():
        assert listed[name] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert {"LICENSE", "model/LICENSE", "runtime/LICENSE", "page/example/ATTRIBUTION.md"} <= files.keys()
    assert not any(name.endswith("server.js") for name in files)


def test_it_names_no_other_host(static_page: Path) -> None:
    index = (static_page / "index.html").read_text()
    loaded = re.findall(r"""(?:src|href)="([^"#]+)""", index.partition('class="model-card"')[0])
    assert loaded and all((static_page / name).exists() for name in loaded if not name.startswith("data:"))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', index)
    assert policy and policy[1].startswith("default-src 'self'; ") and "http" not in policy[1]
    for path in (static_page / "page").rglob("*.js"):
        assert not re.search(r"https?://", path.read_text()), path


def test_the_examples_come_with_their_captions(static_page: Path, checkpoint: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(checkpoint, backend="torch")
    captioner.take_export(static_page / "model" / "onnx", torch.int8)
    for key in EXAMPLES:
        answer = json.loads((static_page / "page" / "example" / f"{key}.json").read_text())
        expected = captioner.caption(data_path("space") / "examples" / EXAMPLES[key])
        assert answer["captions"][0]["caption"] == expected.text


def test_the_command_replaces_its_own_folder_and_no_other(
    static_page: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    command = ["export", "--web", str(mine), "--model", str(checkpoint)]
    assert main(command) == 1
    assert "holds something else than an earlier page" in capsys.readouterr().err
    assert files_of(mine) == {"thesis.txt": b"years of work"}
    (mine / "thesis.txt").unlink()
    for name in ("files.json", "old.js"):
        (mine / name).write_text("{}")
    assert main(command) == 0
    assert "a visitor's browser loads" in capsys.readouterr().out
    assert files_of(mine).keys() == files_of(static_page).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_be_fetched_is_one_sentence_and_leaves_the_folder(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without npm; with a registry that is not reached; with another package than was published."""
    page, tools = tmp_path / "page", tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setattr(sys, "executable", str(tools / "python"))
    monkeypatch.setenv("PATH", str(tools))

    def npm(script: str) -> None:
        (tools / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tools / "npm").chmod(0o755)

    def refused(error: type[CaptionerError], sentence: str) -> None:
        with pytest.raises(error, match=sentence):
            write_static_page(page, str(checkpoint))
        assert not page.exists() and sorted(path.name for path in tmp_path.iterdir()) == ["tools"]

    refused(MissingExtraError, r"npm, which fetches ONNX Runtime Web .* is not installed; .*hf-captioner\[web\]")
    npm("echo 'npm error network not reached' >&2; exit 1")
    refused(CheckpointError, r"npm cannot fetch ONNX Runtime Web .* \(npm error network not reached\)")
    npm("printf other > onnxruntime-web.tgz")
    refused(CheckpointError, "is not what was published; check npm's registry")


def test_it_is_fetched_once(static_page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    monkeypatch.setattr(web_runtime.constants, "HF_ASSETS_CACHE", str(kept))
    folder = kept / "hf-captioner" / f"onnxruntime-web-{web_runtime.VERSION}"
    folder.mkdir(parents=True)
    for path in (static_page / "runtime").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(web_runtime, "_fetch", None)
    web_runtime.copy_web_runtime(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(static_page / "runtime")


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")
def test_the_pushed_space_is_the_same_folder(
    static_page: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandInHub() as hub:
        hub.use(monkeypatch, tmp_path)
        main(["push-space", "me/page", "--model", str(checkpoint)])
        hub.space("me/page").commit("mine", {"mine.txt": b"mine"})
        push_static_space("me/page", static_page)
        pushed = hub.space("me/page").files()
        assert pushed == files_of(static_page) | {"mine.txt": b"mine"}, "what the Gradio page had is gone"
        header = SpaceCard(pushed["README.md"].decode()).data
        assert (header.sdk, header.app_file, header.models) == ("static", "index.html", None)
        assert header.custom_headers["cross-origin-embedder-policy"] == "require-corp"
        main(["push-space", "me/new", "--static", "--model", str(checkpoint)])
        new = hub.space("me/new").files()
        assert hub.space("me/new").sdk == "static" and new.keys() == files_of(static_page).keys()
        assert new["index.html"] == pushed["index.html"]
