"""Graphs that are pushed with a checkpoint are those that its users compute by."""

from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.hub import exported as exporting
from hf_captioner.onnx.export import EXPORT_FILES
from tests.conftest import generated
from tests.hub.standin_hub import StandInHub

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


def test_pushed_graphs_are_used_without_another_export_and_go_with_a_push_without(
    checkpoint: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StandInHub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        assert main(["push", "me/mine", "--model", str(checkpoint), "--onnx"]) == 0
        assert {*EXPORT_FILES, "onnx/README.md"} <= set(hub.model("me/mine").files())
        monkeypatch.setattr(exporting, "export_graphs", None)  # called again, it would fail
        plain = ImageCaptioner.from_pretrained("me/mine")
        assert plain.backend == "torch"
        for dtype in ("float32", "int8"):
            pulled = ImageCaptioner.from_pretrained("me/mine", backend="onnx", dtype=dtype)
            assert pulled.backend == "onnx" and pulled.caption(generated(1)).text
        assert not list(own_cache.rglob("*.onnx"))
        assert main(["push", "me/mine", "--model", str(checkpoint)]) == 0
        assert not [name for name in hub.model("me/mine").files() if name.endswith(".onnx")]


def test_export_from_the_command_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "out"), "--model", str(checkpoint)]) == 0
    assert all((tmp_path / "out" / name).is_file() for name in EXPORT_FILES)
    (tmp_path / "file").write_text("in the way")
    assert main(["export", str(tmp_path / "file"), "--model", str(checkpoint)]) == 1
    assert "cannot be written" in capsys.readouterr().err
