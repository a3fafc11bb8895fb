"""Between a captioner and the same trained further lies one that has both's weights by their share."""

import dataclasses
from pathlib import Path

import pytest
import torch

from hf_captioner import ConfigError, ImageCaptioner
from hf_captioner.hub.evaluation import Evaluation, TrainingSet
from hf_captioner.training.vocabulary import BIAS, grow, grown_weights
from tests.conftest import generated
from train.interpolate import between, main

NEW = ["a quagga runs"] * 4


@pytest.fixture
def further(saved_captioner: ImageCaptioner, tmp_path: Path) -> Path:
    """The checkpoint with a word more, and every weight of its decoder larger by 1."""
    tokenizer, _ = grow(saved_captioner.tokenizer, NEW, min_count=4)
    captioner = ImageCaptioner(dataclasses.replace(saved_captioner.config, vocabulary_size=len(tokenizer)), tokenizer)
    captioner.encoder.load_state_dict(saved_captioner.encoder.state_dict())
    grown = grown_weights(saved_captioner.decoder.state_dict(), tokenizer, NEW)
    captioner.decoder.load_state_dict({name: tensor + 1 for name, tensor in grown.items()})
    captioner.generation_config = dataclasses.replace(saved_captioner.generation_config, length_penalty=0.1)
    captioner.evaluation = Evaluation((TrainingSet("Quaggas", 4, 4),), limits=("It was measured.",))
    captioner.save_pretrained(tmp_path / "further")
    return tmp_path / "further"


def test_each_known_weight_lies_between_and_a_new_word_stays(
    saved_captioner: ImageCaptioner, checkpoint: Path, further: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = [str(checkpoint), str(further), "--share", "0.75", "--out", str(out)]
    assert main(flags) == 0
    assert ImageCaptioner.from_pretrained(out).generation_config == saved_captioner.generation_config
    assert main([*flags, "--length-penalty", "0.8"]) == 0
    found, second = ImageCaptioner.from_pretrained(out), ImageCaptioner.from_pretrained(further)
    known = len(saved_captioner.tokenizer)
    for name, tensor in saved_captioner.decoder.state_dict().items():
        assert torch.allclose(found.decoder.state_dict()[name][: len(tensor)], tensor + 0.75, atol=2e-3), name
    assert torch.equal(found.decoder.state_dict()[BIAS][known:], second.decoder.state_dict()[BIAS][known:])
    assert found.generation_config == dataclasses.replace(saved_captioner.generation_config, length_penalty=0.8)
    assert found.tokenizer.knows("quagga") and found.caption(generated(0)).text
    assert found.evaluation == Evaluation((TrainingSet("Quaggas", 4, 4),)), "its weights were not measured"


@pytest.mark.parametrize(
    ("share", "turned", "sentence"),
    [
        ("1.5", False, "expected a number from 0, all FIRST's, to 1"),
        ("0.5", True, "SECOND's words do not begin with FIRST's"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    share: str,
    turned: bool,
    sentence: str,
    checkpoint: Path,
    further: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pair = [str(further), str(checkpoint)] if turned else [str(checkpoint), str(further)]
    assert main([*pair, "--share", share, "--out", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_captioners_of_two_architectures_have_nothing_between_them() -> None:
    wide, narrow = {"gate": torch.zeros(2, 3)}, {"gate": torch.zeros(2, 2)}
    for first, second in ((wide, narrow), (wide, {}), ({}, wide), (wide, {"gate": torch.zeros(1, 3)})):
        with pytest.raises(ConfigError, match="not of one architecture: they differ in gate"):
            between(first, second, 0.5)
