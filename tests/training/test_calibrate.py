"""A confidence that means what it says: calibrated, low for OOD images, and kept with the checkpoint."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.config import ConfidenceConfig
from hf_captioner.images import open_image, preprocess
from hf_captioner.modeling.confidence import Confidence, residual
from hf_captioner.training.calibrate import (
    area_under_roc,
    calibration_error,
    fit_confidence,
    main,
    ood_images,
    principal_directions,
    reliability,
)
from tests import forked
from tests.conftest import SENTENCES, generated, write_table

FITTED = ConfidenceConfig(intercept=-1.0, slope=4.0, ood_threshold=5.0, ood_temperature=0.5)


def test_the_confidence_rises_with_the_words_and_falls_with_the_distance() -> None:
    confidence = Confidence(FITTED, 8)
    assert confidence(0.0, [math.log(0.8), math.log(0.3125)]) == pytest.approx(0.5, abs=1e-4)
    assert confidence(0.0, [-0.1]) > confidence(0.0, [-0.5]) > confidence(4.9, [-0.5]) > confidence(9.0, [-0.5])
    assert confidence(5.0, [-0.1]) == pytest.approx(0.5 * confidence(0.0, [-0.1]), rel=1e-3)
    assert confidence(0.0, []) == 0
    assert confidence(0.0, [-1e9]) == pytest.approx(1 / (1 + math.e), rel=1e-3)
    assert confidence(1e9, [-0.1]) == confidence(1e9, [-1e9]) == 0


def test_what_lies_along_the_principal_directions_is_no_distance() -> None:
    center, directions = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[1.0, 0.0, 0.0]])
    means = torch.tensor([[9.0, 1.0, 1.0], [-5.0, 4.0, 5.0]])
    assert residual(means, center, directions).tolist() == pytest.approx([0, 5])


def test_a_few_training_images_give_as_many_directions_as_a_checkpoint_has() -> None:
    torch.manual_seed(0)
    means = torch.randn(3, 16)
    center, directions = principal_directions(means)
    assert directions.shape == Confidence(FITTED, 16).directions.shape
    assert residual(means, center, directions).max() < 0.01
    assert residual(means + torch.randn(3, 16), center, directions).min() > 1


def test_the_fit_finds_the_chances_that_drew_the_data() -> None:
    torch.manual_seed(0)
    probabilities, distances = torch.rand(20000), torch.rand(20000) * 0.1
    chances = torch.sigmoid(4 * probabilities.square() - 2)
    correct = (torch.rand(20000) < chances).float()
    fitted = fit_confidence(probabilities, distances, correct)
    assert (fitted.intercept, fitted.slope) == (pytest.approx(-2, abs=0.3), pytest.approx(4, abs=0.3))
    assert 0.09 < fitted.ood_threshold < 0.1 and fitted.ood_temperature > 0
    assert calibration_error(reliability(chances, correct)) < 0.02
    assert calibration_error(reliability(chances**3, correct)) > 0.1


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert area_under_roc(torch.tensor([2.0, 3.0]), torch.tensor([1.0])) == 1
    assert area_under_roc(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0])) == 0.5


def test_the_command_calibrates_a_checkpoint_and_captions_carry_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    table = write_table(tmp_path, ["train"] * 12 + ["validation"] * 12)
    flags = ["--data", str(table), "--model", str(own)]
    assert ImageCaptioner.from_pretrained(own).caption(tmp_path / "0.png").confidence is None
    assert main(flags) == 0
    assert ImageCaptioner.from_pretrained(own).config.confidence is None
    assert main([*flags, "--write"]) == 0
    printed = capsys.readouterr().out
    captioner = ImageCaptioner.from_pretrained(own)
    known = captioner.evaluation.calibration
    assert known is not None and sum(known.captions) == 12
    assert f"expected calibration error: {known.error:.3f}" in printed
    assert f"{known.error:.3f}" in (own / "README.md").read_text()
    caption = captioner.caption(tmp_path / "0.png")
    log_probs = [math.log(word.probability) for word in caption.words]
    assert captioner.confidence is not None
    with torch.inference_mode():
        features = captioner.encode(preprocess(open_image(tmp_path / "0.png"), captioner.config)[None])
        distance = float(captioner.confidence.distance(captioner.decoder.start(features).features.mean()))
    assert caption.confidence == pytest.approx(captioner.confidence(distance, log_probs), abs=1e-6)
    assert 0 < caption.confidence < 1 and caption.to_dict()["confidence"] == caption.confidence


def test_a_calibrated_captioner_survives_saving_bit_for_bit(tiny_captioner: ImageCaptioner, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_captioner.config, confidence=FITTED)
    captioner = ImageCaptioner(config, tiny_captioner.tokenizer)
    captioner.save_pretrained(tmp_path)
    again = ImageCaptioner.from_pretrained(tmp_path)
    assert again.config == config and again.confidence is not None
    assert set(dict(again.named_parameters())) - set(dict(tiny_captioner.named_parameters())) == {
        "confidence.center",
        "confidence.directions",
    }


def test_ood_images_are_a_folder_or_many_kinds(tmp_path: Path) -> None:
    assert len(ood_images(None)) > 30
    generated(0).save(tmp_path / "a.png")
    assert ood_images(tmp_path) == [tmp_path / "a.png"]


def test_an_empty_folder_is_one_sentence(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    table = write_table(tmp_path, ["train", "validation"])
    flags = ["--data", str(table), "--model", str(checkpoint), "--ood", str(tmp_path / "none")]
    assert main(flags) == 1
    assert "holds no images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "validation", "complaint"),
    [
        (32, 12, ""),
        (1, 10, ""),
        (3, 3, "Found 3 validation images to fit a confidence; expected at least 10"),
        (2, 2, "Found 2 validation images to fit"),
        (1, 1, "Found 1 validation image to fit"),
        (0, 12, "has no train split"),
    ],
)
def test_any_number_of_photographs_leaves_a_captioner_that_loads(
    train: int, validation: int, complaint: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    table = write_table(tmp_path, ["train"] * train + ["validation"] * validation)
    code = main(["--data", str(table), "--model", str(own), "--write"])
    if complaint:
        assert code == 1 and complaint in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    else:
        assert code == 0
        known = ImageCaptioner.from_pretrained(own).evaluation.calibration
        assert known is not None and sum(known.captions) == validation and known.ood_images > 30
        assert all(map(math.isfinite, (known.error, known.auroc_correct, known.auroc_ood)))


def test_a_photograph_without_a_caption_changes_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    table = write_table(tmp_path, ["train"] * 4 + ["validation"] * 12)
    table.write_text(table.read_text().replace(f"0.png,{SENTENCES[0]}", "0.png,", 1))
    assert main(["--data", str(table), "--model", str(own), "--write"]) == 1
    assert "images with an empty caption (1): 0.png;" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before


def test_killed_at_any_step_of_writing_it_leaves_a_captioner_that_loads(checkpoint: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    table = write_table(tmp_path, ["train"] * 4 + ["validation"] * 10)
    flags = ["--data", str(table), "--model", str(own), "--write"]
    copies = tmp_path / "copies"
    done = forked.run("tests.training.watched_saving", *flags, environment={"COPIES": str(copies)})
    assert done.returncode == 0, done.stderr
    left = sorted(copies.iterdir(), key=lambda copy: int(copy.name))
    calibrated = [ImageCaptioner.from_pretrained(copy).confidence is not None for copy in left]
    assert (
        len(calibrated) > 5 and calibrated == sorted(calibrated) and calibrated[0] is False and calibrated[-1] is True
    )
    for copy in (*left, own):
        assert not list(copy.glob(".saved"))
