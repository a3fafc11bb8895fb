"""The real command scores a checkpoint and writes what it measured into its card."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.training.agreed_words import says_agreed_word
from hf_captioner.training.evaluate import describe
from tests import forked
from tests.conftest import write_table


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    write_table(folder, ["validation"] * 4 + ["test"] * 2, each=2)
    return folder


@pytest.fixture
def own_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def test_the_scores_are_printed_saved_and_written_into_the_card(
    data: Path, own_checkpoint: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "captions.json"
    flags = f"{data} --model {own_checkpoint} --save {saved} --write-results".split()
    done = forked.run("hf_captioner.cli", "evaluate", *flags)
    assert done.returncode == 0, done.stderr
    assert "images: 4;" in done.stdout and "num_beams 3" in done.stdout and "different captions: " in done.stdout
    names, values = (line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| "))
    assert [row["image"] for row in json.loads(saved.read_text())] == ["0.png", "1.png", "2.png", "3.png"]
    (found,) = ImageCaptioner.from_pretrained(own_checkpoint).evaluation.scores
    assert (found.dataset, found.split, found.images) == ("an unnamed data set", "validation", 4)
    assert [100 * score for score in found.metrics.values()] == pytest.approx(list(map(float, values)), abs=0.06)
    assert list(found.metrics) == names
    assert found.command == "hf-captioner evaluate DATA --model MODEL --save FILE --write-results"
    card = ModelCard.load(own_checkpoint / "README.md")
    assert card.data.eval_results is None and "Measured on only 4 images" in card.text
    assert "\nan unnamed data set, validation split, 4 images" in card.text and found.command in card.text
    for name in ("README.md", "evaluation.json"):
        told = (own_checkpoint / name).read_text()
        assert not any(path in told for path in (data.name, str(tmp_path), "captions.json")), "this machine's paths"


@pytest.mark.parametrize(
    ("flags", "code", "complaint"),
    [
        (["--split", "train"], 1, "has no train split"),
        (["--model", "./gone"], 1, "There is no folder ./gone"),
        (["--num-beams", "0"], 2, "num_beams is 0; expected 1 to 100"),
        (["--device", "abacus"], 2, "device is 'abacus'"),
        (["--num-beams", "2", "--limit", "3", "--write-results"], 2, "leave out num_beams, limit"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    data: Path, checkpoint: Path, flags: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(data), "--model", str(checkpoint), *flags]) == code
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("places", "code", "complaint"),
    [
        (["./nowhere"], 1, "nowhere does not exist"),
        (["a", "b", "--dataset", "c"], 2, "--dataset has 1 for 2 data sets (a, b)"),
    ],
)
def test_data_that_cannot_be_used_is_one_sentence(
    checkpoint: Path, places: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *places, "--model", str(checkpoint)]) == code
    assert complaint in capsys.readouterr().err


def test_captions_are_described_beside_the_metrics() -> None:
    found = describe(["a dog on a", "a man in a red shirt in a red shirt", "a dog runs", "a dog runs"])
    assert found["different captions"] == 3
    assert found["end in an article or preposition"] == 1
    assert found["repeat a phrase"] == 1
    assert found["words a caption"] == pytest.approx((4 + 10 + 3 + 3) / 4)


def test_a_caption_says_an_agreed_word_or_none() -> None:
    kitchen = ["A man in the Kitchen.", "the kitchen, with a man", "a man, kitchen", "oven, oven, oven", "an oven"]
    found = says_agreed_word(["a man in a kitchen", "a man with an oven"], [kitchen] * 2)
    assert found == [True, False], "man is common, and two people say oven"
    assert says_agreed_word(["a man in a kitchen"], [["a kitchen"] * 2]) == [], "two cannot agree"
    assert says_agreed_word(["an ox"], [["an ox"] * 3]) == [], "too short"
