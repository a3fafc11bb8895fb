"""The report shows the worst and the best captions, each with its image and what people wrote, and markup as text."""

import re
import shutil
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.training.bias_report import bias_report, to_markdown
from hf_captioner.training.report import main
from tests.conftest import write_table


def test_habits_count_words_and_men_said_for_women() -> None:
    captions = ["a man runs", "a man sits", "a girl runs", "a dog runs"]
    references = [["A man runs .", "a boy"], ["A woman, sitting", "A lady sits"], ["a girl"], ["The dog .", "a dog"]]
    found = bias_report(captions, [group * 3 for group in references])
    assert (found.images, found.words_said, found.words_written) == (4, 6, 11)
    assert (found.said["runs"], found.written["runs"]) == (3, 0.5)
    assert (found.said["lady"], found.written["lady"]) == (0, 0.5)
    assert found.men == (1, 1, 0) and found.women == (2, 1, 1)
    printed = to_markdown(found)
    assert "one person writes it): runs 3 (0)," in printed and "said too seldom: boy 0 (0), lady 0 (0)" in printed
    assert "| men or boys only | 1 | 1 | 0 |" in printed and "| women or girls only | 2 | 1 | 1 |" in printed


def test_the_report_holds_what_was_said_and_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_table(tmp_path, ["validation"] * 6)
    table.write_text(table.read_text().replace("dog", "<b>dog</b>"))
    out = tmp_path / "report.html"
    flags = f"--data {table} --model {checkpoint} --out {out} --each 2"
    assert main(flags.split()) == 0
    assert "different words said: " in capsys.readouterr().out
    page = out.read_text()
    assert [len(re.findall("<figure>", part)) for part in page.split("<h2>")] == [0, 2, 2, 2]
    assert len(re.findall("data:image/jpeg;base64,[A-Za-z0-9+/]{500}", page)) == 6
    worst, best = ([float(value) for value in re.findall(r"CIDEr ([\d.]+)", part)] for part in page.split("<h2>")[2:])
    assert worst == sorted(worst) and best == sorted(best, reverse=True) and worst[0] <= best[-1]
    assert "&lt;b&gt;dog" in page and "<b>dog</b>" not in page


def test_what_it_counts_goes_into_the_card(checkpoint: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(checkpoint, tmp_path / "own"))
    table = write_table(tmp_path, ["validation"] * 4)
    assert main(f"--data {table} --model {own} --out {tmp_path / 'report.html'} --write".split()) == 0
    habits = ImageCaptioner.from_pretrained(own).evaluation.habits
    assert habits is not None and habits.images == 4 and habits.said
    assert f"says {habits.words_said} different words" in (own / "README.md").read_text()


def test_a_folder_that_is_not_there_is_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "r.html"), "--model", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert "none does not exist; expected" in error and error.count("\n") == 1
