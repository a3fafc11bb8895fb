"""Several data sets in one measurement: each scored apart, or all of their images together."""

import json
import math
import shutil
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.training import calibrate, occlusion, report, tune_generation
from tests.training.conftest import data_set

pytestmark = pytest.mark.usefixtures("no_java")


@pytest.fixture
def own(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def test_evaluate_scores_each_apart_and_tells_their_mean(
    blocks: Path, stripes: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "captions.json"
    flags = ["--model", str(own), "--dataset", "Blocks", "Stripes", "--write-results", "--save", str(saved)]
    assert main(["evaluate", str(blocks), str(stripes), *flags]) == 0
    printed = capsys.readouterr().out
    assert "\nimages: 4;" in printed and "\nimages: 3;" in printed and "say an agreed word: " in printed
    first, second = (one for one in ImageCaptioner.from_pretrained(own).evaluation.scores)
    assert [(one.dataset, one.images) for one in (first, second)] == [("Blocks", 4), ("Stripes", 3)]
    mean = 50 * (first.metrics["CIDEr"] + second.metrics["CIDEr"])
    assert f"mean CIDEr of the 2 data sets: {mean:.1f}\n" in printed
    assert str(blocks) not in (own / "evaluation.json").read_text()
    assert [row["data_set"] for row in json.loads(saved.read_text())] == ["Blocks"] * 4 + ["Stripes"] * 3
    assert main(["evaluate", str(stripes), "--model", str(own)]) == 0
    alone = capsys.readouterr().out
    assert f"| {100 * second.metrics['CIDEr']:.1f} |\n" in alone and "mean CIDEr" not in alone
    assert "agreed word" not in alone, "one caption an image: nobody can agree"


def test_the_generation_settings_are_chosen_by_the_means(
    blocks: Path, stripes: Path, own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_generation, "BEAMS", (2, 3))
    monkeypatch.setattr(tune_generation, "LENGTH_PENALTIES", (0.7,))
    flags = ["--data", str(blocks), str(stripes), "--dataset", "Blocks", "Stripes", "--model", str(own)]
    assert tune_generation.main(flags) == 0
    printed = capsys.readouterr().out
    header, *rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    columns = [header.index(name) for name in ("CIDEr", "Blocks CIDEr", "Stripes CIDEr")]
    for row in rows:
        mean, one, two = (float(row[column]) for column in columns)
        assert mean == pytest.approx((one + two) / 2, abs=0.11)
    products = [math.prod(float(row[header.index(name)]) for name in tune_generation.OBJECTIVE) for row in rows]
    assert products[0] == pytest.approx(max(products), rel=0.05)
    assert "The first row is the best on 7 validation images." in printed


def test_the_other_measurements_take_all_images(
    blocks: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = data_set(tmp_path / "more", ["train"] * 2 + ["validation"] * 8)
    flags = ["--data", str(blocks), str(more), "--model", str(own), "--write"]
    assert calibrate.main(flags) == 0
    assert occlusion.main(flags) == 0
    assert report.main([*flags, "--out", str(tmp_path / "report.html")]) == 0
    printed, found = capsys.readouterr().out, ImageCaptioner.from_pretrained(own).evaluation
    assert found.calibration is not None and sum(found.calibration.captions) == 12
    assert f"expected calibration error: {found.calibration.error:.3f} (photos 0." in printed and ", more 0." in printed
    assert found.occlusion is not None and found.occlusion.images == 12 and "12 images, " in printed
    assert found.habits is not None and found.habits.images == 12
    page = (tmp_path / "report.html").read_text()
    assert "12 validation captions of" in page and "Mean CIDEr photos " in page and ", more " in page


def test_a_data_set_that_lacks_the_split_is_left_out_where_another_has_it(
    blocks: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = data_set(tmp_path / "more", ["train"] * 2)
    assert occlusion.main(["--data", str(blocks), str(more), "--model", str(own)]) == 0
    printed = capsys.readouterr()
    assert "more has no validation split and is left out." in printed.err and printed.out.startswith("4 images, ")
    assert occlusion.main(["--data", str(more), "--model", str(own)]) == 1
    assert f"{more} has no validation split." in capsys.readouterr().err
