"""Checkpoints of every format load for ever, and what this version cannot read is one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.config import ConfidenceConfig, GenerationConfig
from tests.conftest import generated

FROZEN = Path(__file__).parent / "frozen"
FORMATS = ("format0", "format1")


@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_of_an_older_version_captions_as_it_did(name: str) -> None:
    captioner = ImageCaptioner.from_pretrained(FROZEN / name)
    expected = json.loads((FROZEN / "captions.json").read_text())
    for index, candidates in enumerate(expected):
        best = captioner.caption(generated(index))
        for caption, old in zip(best.candidates, candidates, strict=True):
            assert caption.text == old["caption"]
            assert (caption.confidence, caption.score) == pytest.approx((old["confidence"], old["score"]), abs=1e-4)
            assert [word.probability for word in caption.words] == pytest.approx(old["probabilities"], abs=1e-4)
            maps = np.array([word.attention for word in caption.words])
            np.testing.assert_allclose(maps, np.array(old["attention"]), atol=1e-4)


def test_version_0_1_is_read_as_what_it_meant() -> None:
    captioner = ImageCaptioner.from_pretrained(FROZEN / "format0")
    assert (captioner.config.encoder_layer, captioner.config.hidden_size) == ("layer1", 8)
    assert captioner.config.confidence == ConfidenceConfig(-1.0, 4.0, 5.0, 0.5)
    assert captioner.generation_config == GenerationConfig(
        num_beams=2, num_return_sequences=2, max_length=9, no_repeat_ngram_size=2, bad_words=("beach",)
    )
    (scores,) = captioner.evaluation.scores
    assert (scores.dataset, scores.split, scores.metrics["CIDEr"]) == ("birds", "validation", 0.5)
    assert captioner.evaluation.occlusion is not None and captioner.evaluation.occlusion.baseline == 0.4
    assert captioner.evaluation.calibration is not None and captioner.evaluation.calibration.auroc_ood == 0.99


@pytest.mark.parametrize("name", FORMATS)
def test_saved_again_it_is_of_the_newest_format(name: str, tmp_path: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(FROZEN / name)
    captioner.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["format"] == 1
    assert (tmp_path / "model.safetensors").read_bytes() == (FROZEN / name / "model.safetensors").read_bytes()
    again = ImageCaptioner.from_pretrained(tmp_path)
    assert again.description == captioner.description


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FROZEN / "format1", tmp_path / "copy"))


def change(folder: Path, file: str, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / file).read_text())
    edit(values)
    (folder / file).write_text(json.dumps(values))


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "evaluation.json"])
def test_a_missing_key_has_its_default_and_a_newer_formats_key_says_upgrade(copy: Path, file: str) -> None:
    optional = {"config.json": "dropout", "generation_config.json": "num_beams", "evaluation.json": "limits"}[file]
    change(copy, file, lambda values: values.pop(optional))
    ImageCaptioner.from_pretrained(copy)
    change(copy, file, lambda values: values.update(format=2))
    ImageCaptioner.from_pretrained(copy)  # of a newer format, but nothing in it is new
    change(copy, file, lambda values: values.update(hologram=True))
    with pytest.raises(CheckpointError, match=r"'hologram', written by a newer hf-captioner \(format 2.*upgrade: pip"):
        ImageCaptioner.from_pretrained(copy)
    change(copy, file, lambda values: values.update(format=1))
    with pytest.raises(CheckpointError, match=r"has no 'hologram'; it has the keys"):
        ImageCaptioner.from_pretrained(copy)
    change(copy, file, lambda values: values.update(format="one"))
    with pytest.raises(CheckpointError, match=r"has the format 'one'; expected a whole number"):
        ImageCaptioner.from_pretrained(copy)


def test_what_has_no_default_is_asked_for(copy: Path) -> None:
    change(copy, "evaluation.json", lambda values: values["occlusion"].pop("words"))
    with pytest.raises(CheckpointError, match=r"evaluation\.json: Occlusion lacks words"):
        ImageCaptioner.from_pretrained(copy)


def test_only_three_files_are_needed(copy: Path) -> None:
    for name in ("generation_config.json", "evaluation.json", "README.md", "LICENSE"):
        (copy / name).unlink()
    captioner = ImageCaptioner.from_pretrained(copy)
    assert captioner.generation_config == GenerationConfig()
    assert captioner.caption(generated(0)).text
