"""The real command scores a checkpoint and writes what it measured into its card."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_captioner import ImageCaptioner
from hf_captioner.training.evaluate import describe, main
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
    flags = f"--data {data} --model {own_checkpoint} --save {saved} --write-results".split()
    done = subprocess.run(
        [sys.executable, "-m", "hf_captioner.training.evaluate", *flags],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "images: 4;" in done.stdout and "beams 3" in done.stdout and "different captions: " in done.stdout
    names, values = (line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| "))
    assert [row["image"] for row in json.loads(saved.read_text())] == ["0.png", "1.png", "2.png", "3.png"]
    (found,) = ImageCaptioner.from_pretrained(own_checkpoint).evaluation.scores
    assert (found.dataset, found.split, found.images) == (data.name, "validation", 4)
    assert [100 * score for score in found.metrics.values()] == pytest.approx(list(map(float, values)), abs=0.06)
    assert list(found.metrics) == names
    assert found.command == f"python -m hf_captioner.training.evaluate {' '.join(flags)}"
    card = ModelCard.load(own_checkpoint / "README.md")
    assert {result.metric_name for result in card.data.eval_results} == set(names)
    assert f"{data.name}, validation split" in card.text


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--split", "train"], "has no train split"),
        (["--model", "./gone"], "There is no folder ./gone"),
        (["--data", "./nowhere"], "nowhere does not exist"),
        (["--num-beams", "0"], "num_beams is 0; expected at least 1"),
        (
            ["--num-beams", "2", "--limit", "3", "--write-results"],
            "checkpoint's own search; leave out num_beams, limit",
        ),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    data: Path, checkpoint: Path, flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(data), "--model", str(checkpoint), *flags]) == 1
    assert complaint in capsys.readouterr().err


def test_what_the_metrics_do_not_see_is_counted() -> None:
    found = describe(["a dog on a", "a man in a red shirt in a red shirt", "a dog runs", "a dog runs"])
    assert found["different captions"] == 3
    assert found["end in an article or preposition"] == 1
    assert found["repeat a phrase"] == 1
    assert found["words a caption"] == pytest.approx((4 + 10 + 3 + 3) / 4)
