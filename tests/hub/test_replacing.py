"""Whatever is written is read again before the old is replaced, and nothing of another checkpoint stays beside it."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.config import ConfidenceConfig
from hf_captioner.hub import checkpoint as checkpoint_files
from hf_captioner.hub.card import update_evaluation
from hf_captioner.hub.evaluation import Evaluation, Scores
from hf_captioner.modeling.confidence import Confidence
from tests.hub.standin_hub import StandInHub

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SCORES = Scores("Birds", "validation", {"CIDEr": 0.5}, "PTB", "hf-captioner evaluate DATA", 1000)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_few_directions(captioner: ImageCaptioner) -> None:
    """A calibration whose tensors are not those that config.json asks for."""
    fitted = ConfidenceConfig(0.0, 1.0, 1.0, 1.0)
    captioner.config = dataclasses.replace(captioner.config, confidence=fitted)
    captioner.confidence = Confidence(fitted, captioner.config.hidden_size)
    captioner.confidence.directions.data = captioner.confidence.directions.data[:1]


def without_a_gate(captioner: ImageCaptioner) -> None:
    captioner.decoder.gate = torch.nn.Identity()


def with_another_config(captioner: ImageCaptioner) -> None:
    captioner.config = dataclasses.replace(captioner.config, hidden_size=24)


@pytest.mark.parametrize("spoil", [with_few_directions, without_a_gate, with_another_config])
def test_what_would_not_load_replaces_nothing(captioner: ImageCaptioner, tmp_path: Path, spoil: Any) -> None:
    before = contents(tmp_path / "saved")
    spoil(captioner)
    with pytest.raises(CheckpointError, match=r"^Nothing is saved, as it would not load again: .*does not fit config"):
        captioner.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path / "saved") == before
    ImageCaptioner.from_pretrained(tmp_path / "saved")


def test_measurements_that_would_not_load_replace_nothing(captioner: ImageCaptioner, tmp_path: Path) -> None:
    before = contents(tmp_path / "saved")
    broken = dataclasses.replace(SCORES, metrics={"CIDEr": 0.5})
    broken.metrics["CIDEr"] = float("nan")
    with pytest.raises(CheckpointError, match="evaluation"):
        update_evaluation(tmp_path / "saved", scores=(broken,))
    assert contents(tmp_path / "saved") == before
    update_evaluation(tmp_path / "saved", scores=(SCORES,))
    assert ImageCaptioner.from_pretrained(tmp_path / "saved").evaluation.scores == (SCORES,)


def test_the_licence_of_another_checkpoint_does_not_stay(
    captioner: ImageCaptioner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captioner.weights_license = "Terms of others.\n"
    captioner.save_pretrained(tmp_path / "out")
    captioner.weights_license = None
    with caplog.at_level(logging.WARNING, "hf_captioner"):
        captioner.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out" / "LICENSE").exists()
    assert "LICENSE was another checkpoint's and is removed" in caplog.text


def test_the_measurements_of_another_checkpoint_do_not_stay_on_the_hub(
    online: StandInHub, captioner: ImageCaptioner
) -> None:
    captioner.evaluation = Evaluation(scores=(SCORES,))
    captioner.push_to_hub("me/mine")
    online.model("me/mine").commit("notes", {"notes.txt": b"mine"})
    captioner.evaluation = Evaluation()
    captioner.push_to_hub("me/mine", allow_patterns=["*.md"])
    assert "evaluation.json" in online.model("me/mine").files()
    captioner.push_to_hub("me/mine")
    assert "evaluation.json" not in online.model("me/mine").files()
    assert "notes.txt" in online.model("me/mine").files()


def test_a_push_of_nothing_new_says_so_in_our_own_words(
    online: StandInHub, captioner: ImageCaptioner, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["push", "me/mine", "--model", str(tmp_path / "saved")]
    assert main(command) == 0
    first = capfd.readouterr().out
    assert main(command) == 0
    printed, said = capfd.readouterr()
    assert printed == first
    own = "hf-captioner: me/mine: nothing has changed since the last push, so there is no new commit."
    assert said.splitlines()[-1] == own and "empty commit" not in said


def test_a_push_goes_to_a_branch_or_a_pull_request_under_its_own_title(
    online: StandInHub, captioner: ImageCaptioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ["push", "me/mine", "--model", str(tmp_path / "saved")]
    assert main([*push, "--commit-message", "First"]) == 0
    repository = online.model("me/mine")
    repository.branches["v2"] = list(repository.commits())
    update_evaluation(tmp_path / "saved", scores=(SCORES,))
    assert main([*push, "--revision", "v2", "--commit-message", "Measured"]) == 0
    capsys.readouterr()
    assert main([*push, "--create-pr"]) == 0
    assert capsys.readouterr().out == f"{online.url}/me/mine/discussions/1\n"
    titles = {name: [commit.title for commit in repository.commits(name)] for name in ("main", "v2", "refs/pr/1")}
    assert titles == {
        "main": ["First"],
        "v2": ["First", "Measured"],
        "refs/pr/1": ["First", "Push captioner"],
    }
    assert main([*push, "--revision", "none"]) == 1
    assert "me/mine at branch none: the Hub's repository has no such revision" in capsys.readouterr().err


def test_a_card_that_is_kept_is_said(
    online: StandInHub, captioner: ImageCaptioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push = ["push", "me/mine", "--model", str(tmp_path / "saved")]
    main(push)
    online.model("me/mine").commit("Edit", {"README.md": b"---\nlanguage: en\n---\nMine.\n"})
    capsys.readouterr()
    assert main(push) == 0
    assert "me/mine: README.md was written or edited by a person; it is left as it is" in capsys.readouterr().err


def test_killed_before_another_checkpoints_files_are_gone_it_is_finished_by_the_next_that_reads(
    saved_captioner: ImageCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    saved_captioner.save_pretrained(folder)
    for name in ("LICENSE", "evaluation.json"):
        (folder / name).write_text("{}")
    monkeypatch.setattr(checkpoint_files, "finish_replacing", lambda folder: None)  # a kill right before
    saved_captioner.save_pretrained(folder)
    assert (folder / "LICENSE").exists()
    monkeypatch.undo()
    captioner = ImageCaptioner.from_pretrained(folder)
    assert captioner.weights_license is None and captioner.evaluation == Evaluation()
    assert not {"LICENSE", "evaluation.json", ".saved"} & {path.name for path in folder.iterdir()}
