"""A table of captions survives a kill at any byte, belongs to one run, and holds the same in every format."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from hf_captioner import Caption, ConfigError, ImageError, Word
from hf_captioner.bulk.parts import ROWS_PER_PART
from hf_captioner.bulk.results import SeenKeys, to_row
from hf_captioner.bulk.writers import FORMATS, open_writer

FINGERPRINT = {"model": "one"}
AWKWARD = [
    "plain.jpg",
    'with "quotes", and\nlines.jpg',
    "caf\udce9.jpg",
    "ünïcode 漢字.png",
    "=1+1.png",
    "\x1b[31m.png",
]
AWKWARD += ["caf\\udce9.jpg", "'=1+1.png"]  # really named so
STORED = ["plain.jpg", 'with "quotes", and\\u000alines.jpg', "caf\\udce9.jpg", "ünïcode 漢字.png", "=1+1.png"]
STORED += ["\\u001b[31m.png", "caf\\\\udce9.jpg", "'=1+1.png"]


def caption(text: str) -> Caption:
    word = Word(text, 0.5, np.ones((1, 1), np.float32), ((text, 0.5),))
    return Caption(text, (word,), -0.5, True, 0.25)


ROWS = [to_row(name, caption(f'a dog number {i}, "so" it says')) for i, name in enumerate(AWKWARD)]
ROWS.insert(2, to_row("bad.jpg", ImageError("bad.jpg: no image.")))
THREE = dataclasses.replace(caption("first"), others=(caption("second"), caption("third")))
ROWS.append(to_row("three.jpg", THREE))


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    with open_writer(path, FINGERPRINT) as writer:
        writer.write(rows[:2])
        writer.write(rows[2:])
    return path


def parts(path: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(path.glob("*.parquet")) for row in pyarrow.parquet.read_table(part).to_pylist()]


def test_every_format_holds_the_same(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in written(tmp_path / "t.jsonl").read_text().splitlines()]
    with written(tmp_path / "t.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    stored = parts(written(tmp_path / "t.parquet"))
    assert [row["path"] for row in lines] == [*STORED[:2], "bad.jpg", *STORED[2:], "three.jpg"]
    for line, row, part in zip(lines, table, stored, strict=True):
        formula = "=" in line["path"]
        assert line["path"] == row["path"].removeprefix("'" if formula else "") == part["path"]
        assert row["path"][0] not in "=+-@"
        assert line.get("caption") == (row["caption"] or None) == part["caption"]
        assert line.get("error") == (row["error"] or None) == part["error"]
        assert line.get("confidence") == (float(row["confidence"]) if row["confidence"] else None) == part["confidence"]
    assert [candidate["caption"] for candidate in lines[-1]["candidates"]] == ["first", "second", "third"]
    assert json.loads(table[-1]["candidates"]) == stored[-1]["candidates"] == ["first", "second", "third"]
    assert "candidates" not in lines[0] and table[0]["candidates"] == "" and stored[0]["candidates"] is None
    assert stored[0]["words"] == [{"text": 'a dog number 0, "so" it says', "probability": 0.5}]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_cut_at_any_byte_it_is_continued_and_ends_the_same(tmp_path: Path, suffix: str) -> None:
    whole = written(tmp_path / f"whole{suffix}").read_bytes()
    for end in range(len(whole) + 1):
        path = tmp_path / f"cut{suffix}"
        path.unlink(missing_ok=True)
        with open_writer(path, FINGERPRINT):
            path.write_bytes(whole[:end])
        with open_writer(path, FINGERPRINT) as writer:
            rest = [row for row in ROWS if not writer.done.take(row["path"])]
            assert len(writer.done) == 0
            writer.write(rest)
        assert path.read_bytes() == whole


def test_what_a_kill_left_of_a_parquet_file_is_removed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.parquet")
    (path / ".x.tmp").write_bytes(b"PAR1 torn")
    with open_writer(path, FINGERPRINT) as writer:
        assert [writer.done.take(row["path"]) for row in ROWS] == [True] * len(ROWS)
        writer.write([to_row(str(i), caption("a")) for i in range(ROWS_PER_PART)])
        assert len(list(path.glob("*.parquet"))) == 2
    assert not list(path.glob(".*"))
    (path / "part-bad.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(ConfigError, match=r"part-bad\.parquet is damaged"):
        open_writer(path, FINGERPRINT)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_table_belongs_to_one_run_and_one_process(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"t{suffix}")
    with pytest.raises(ConfigError, match="was begun with another model"):
        open_writer(path, {"model": "two"})
    with open_writer(path, FINGERPRINT), pytest.raises(ConfigError, match="Another run is writing"):
        open_writer(path, FINGERPRINT)
    with open_writer(path, FINGERPRINT) as writer:
        assert len(writer.done) == len(ROWS)
    (tmp_path / f"t{suffix}.job").unlink()
    with pytest.raises(ConfigError, match="exists and is not an earlier run's"):
        open_writer(path, FINGERPRINT)
    with pytest.raises(ConfigError, match=r"expected a name that ends in \.jsonl, \.csv, \.parquet"):
        open_writer(tmp_path / "t.xlsx", FINGERPRINT)


@pytest.mark.parametrize(
    ("suffix", "noise"),
    [
        (".jsonl", b"not json\n"),
        (".jsonl", b"[]\n"),
        (".jsonl", b'{"path": 5}\n'),
        (".jsonl", b"\n"),
        (".jsonl", b"[" * 100_000 + b"\n"),
        (".csv", b'"' * 2_000_001),
        (".csv", b"\n"),
        (".csv", b"a.jpg,a dog\n"),
    ],
)
def test_a_damaged_table_is_named_and_not_cut(tmp_path: Path, suffix: str, noise: bytes) -> None:
    path = written(tmp_path / f"t{suffix}")
    content = path.read_bytes() + noise
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="repair it, or give another --out"):
        open_writer(path, FINGERPRINT)
    assert path.read_bytes() == content


def test_names_are_taken_as_often_as_they_were_put_in() -> None:
    names = SeenKeys(["a", "b", "a"])
    assert len(names) == 3
    assert [names.take(name) for name in ("a", "a", "a", "b", "b", "c")] == [True, True, False, True, False, False]
    assert not SeenKeys().take("a")
