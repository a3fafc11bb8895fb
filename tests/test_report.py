"""The report shows the worst and the best captions, each with its picture and what people wrote, and markup as text."""

import re
from pathlib import Path

from tests.conftest import SENTENCES, generated
from train.report import main


def test_the_report_holds_what_was_said_and_written(checkpoint: Path, tmp_path: Path) -> None:
    rows = ["path,caption,split"]
    for index in range(6):
        generated(index).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{SENTENCES[index % 4]} <b>{index}</b>,dev")
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    out = tmp_path / "report.html"
    flags = f"--data {tmp_path}/captions.csv --model {checkpoint} --out {out} --each 2"
    assert main(flags.split()) == 0
    page = out.read_text()
    assert [len(re.findall("<figure>", part)) for part in page.split("<h2>")] == [0, 2, 2, 2]
    assert len(re.findall("data:image/jpeg;base64,[A-Za-z0-9+/]{500}", page)) == 6
    worst, best = ([float(value) for value in re.findall(r"CIDEr ([\d.]+)", part)] for part in page.split("<h2>")[2:])
    assert worst == sorted(worst) and best == sorted(best, reverse=True) and worst[0] <= best[-1]
    assert "&lt;b&gt;" in page and "<b>0</b>" not in page


def test_a_folder_that_is_not_there_is_one_sentence(checkpoint: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "r.html"), "--model", str(checkpoint)]) == 1
    assert capsys.readouterr().err.startswith("error: ")
