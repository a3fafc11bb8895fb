"""Many images at once, without a browser: the rows of the table and the files that are downloaded."""

import csv
import io
import json
from pathlib import Path

import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.demo import tab_batch
from hf_captioner.demo.uploads import Upload
from hf_captioner.training.data import load_records


@pytest.fixture
def table(tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path) -> list[list[str]]:
    bad = tmp_path / "=cmd <b>bad.jpg"
    bad.write_text("not an image")
    paths = [*image_paths[:2], bad, *image_paths[2:]]
    return list(tab_batch.caption_rows(tiny_captioner, [Upload(str(path), path.name) for path in paths]))


def test_a_broken_file_is_a_row_that_says_why(
    table: list[list[str]], tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path
) -> None:
    expected = [caption.text for caption in tiny_captioner.caption(image_paths)]
    assert [row[1] for row in table] == [*expected[:2], "", *expected[2:]]
    photo, _, _, name, problem = table[2]
    assert name == "=cmd <b>bad.jpg" and photo == ""
    assert problem.startswith("This file isn't an image") and str(tmp_path) not in problem


def test_too_many_files_are_refused_in_a_sentence() -> None:
    sentence = tab_batch.too_many([Upload("a.jpg", "a.jpg")] * 501)
    assert "501" in sentence and "at most 500" in sentence


def test_the_metadata_trains_the_next_model(table: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(tab_batch.as_metadata(table))
    records = load_records(tmp_path, split_file=tmp_path / "splits.json", seed=1)
    assert {record.path.name: record.captions for record in records} == {row[3]: (row[1],) for row in table if row[1]}


def test_the_table_is_downloaded_as_csv_and_json(table: list[list[str]]) -> None:
    rows = list(csv.DictReader(io.StringIO(tab_batch.as_csv(table))))
    assert [row["caption"] for row in rows] == [row[1] for row in table]
    assert rows[2]["file"] == "'=cmd <b>bad.jpg", "a spreadsheet would run it"
    assert [entry["problem"] != "" for entry in json.loads(tab_batch.as_json(table))] == [
        False,
        False,
        True,
        *[False] * 3,
    ]
