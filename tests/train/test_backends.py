"""What another way to compute changes is counted as it is."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import write_table
from train.backends import changes, main


def caption(text: str, confidence: float, attention: list[float]) -> dict[str, Any]:
    words = [{"text": word, "attention": [attention]} for word in text.split()]
    return {"caption": text, "confidence": confidence, "words": words}


def test_changes_are_counted() -> None:
    one, other = caption("a dog", 0.5, [1, 0]), caption("a cat", 0.25, [0, 1])
    assert changes([one, other], [one, other]) == ("0 of 2", "0.000", "0.000", "0.0 %", "0.0 %")
    assert changes([one], [other]) == ("1 of 1", "0.250", "0.250", "-", "-")
    half = one | {"words": [*one["words"][:1], *caption("dog", 0.5, [0.5, 0.5])["words"]]}
    assert changes([one, one], [half, other]) == ("1 of 2", "0.125", "0.250", "25.0 %", "50.0 %")


def test_every_other_way_is_compared(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(tmp_path, ["train", *["validation"] * 3])
    assert main(["--data", str(tmp_path / "captions.csv"), "--model", str(checkpoint), "--limit", "2"]) == 0
    ways = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if " of 2 |" in line]
    assert ways[0] == "PyTorch, float32" and ways[-1].startswith("the page in the browser")
    assert ways[1:-1] == ["ONNX Runtime, float32", "ONNX Runtime, int8", "PyTorch, bfloat16"]
