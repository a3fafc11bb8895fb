"""Tuning stores the best setting, and no result that was measured with another."""

import shutil
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.hub.evaluation import Evaluation, Scores
from hf_captioner.training import tune_generation as tune
from tests.conftest import write_table


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_table(tmp_path, ["validation"] * 6)


def test_the_best_setting_is_stored_and_old_results_are_dropped(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    captioner = ImageCaptioner.from_pretrained(own)
    old = Scores("birds", "validation", {"CIDEr": 0.5}, "PTB", "measured with other settings")
    captioner.evaluation = Evaluation(scores=(old,))
    captioner.save_pretrained(own)
    flags = ["--data", str(data), "--model", str(own)]
    assert tune.main(flags) == 0
    assert ImageCaptioner.from_pretrained(own).evaluation.scores == (old,)
    assert tune.main([*flags, "--write"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("The first row is the best on 6 validation images.\nOn so few the choice is chance") == 2
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[2:3].isdigit()]
    products = [float(row[4]) * float(row[5]) * float(row[6]) for row in rows]
    assert len(rows) > 10 and products[0] == pytest.approx(max(products), rel=0.05)
    tuned = ImageCaptioner.from_pretrained(own)
    chosen = tuned.generation_config
    assert {row[0] for row in rows} == {"64", "72"}
    found = [
        tuned.config.image_size,
        chosen.num_beams,
        chosen.length_penalty,
        chosen.no_repeat_ngram_size,
    ]
    assert [str(value) for value in found] == rows[0][:4]
    assert tuned.evaluation.scores == ()
