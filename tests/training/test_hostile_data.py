"""Data that somebody else collected: whatever it holds is read, counted or refused in a sentence, never a traceback."""

import csv
import json
import logging
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.errors import DataError
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training import report, tune_generation
from hf_captioner.training.data import load_records
from tests import forked
from tests.conftest import SENTENCES, generated

pytestmark = pytest.mark.usefixtures("only_training")

RECIPE = "mixed_precision: 'no'\nstages: [{epochs: 1, learning_rate: 0.001, warmup: 0}]\n"


def folder_of(folder: Path, captions: list[Any], splits: list[str] | None = None) -> Path:
    """A metadata.jsonl with an image for each of the captions; the last one is for validation."""
    folder.mkdir(exist_ok=True)
    splits = splits or ["train"] * (len(captions) - 1) + ["validation"]
    lines = []
    for index, (caption, split) in enumerate(zip(captions, splits, strict=True)):
        generated(index).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "captions": caption, "split": split}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")  # as a text editor leaves it
    return folder


def train(data: Path, checkpoint: Path, *flags: str) -> int:
    """`hf-captioner train`, the tiny checkpoint further; `out` lies beside the data."""
    recipe = data.parent / "recipe.yaml"
    recipe.write_text(RECIPE)
    out = str(data.parent / "out")
    return main(["train", str(data), "--out", out, "--recipe", str(recipe), "--init", str(checkpoint), *flags])


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr: one line."""
    (line,) = [part for part in capsys.readouterr().err.split("\n") if part.strip()]
    return line.rpartition("\r")[2]


EMOJI = ["🐶", "🐶", "🐱🐱", "🌳 ❤️", "👍", "🎉", "😀", "⛵", "🚲", "🌧️", "5"]
CHINESE = ["一只狗在草地上奔跑", "两个孩子在海滩上玩", "一个男人爬墙", "黑狗跳过栅栏", "女孩笑了"] * 2


@pytest.mark.parametrize(
    ("captions", "start", "complaint"),
    [
        (EMOJI, "init", "No caption holds a word, only figures and signs: 🐶, 🐱🐱"),
        (EMOJI, "backbone", "No caption holds a word"),
        (CHINESE, "init", "Not one word of the validation captions is among the"),
        ([*SENTENCES, CHINESE[0]], "init", "Not one word of the validation captions is among the"),
        ([*CHINESE, SENTENCES[0]], "init", "Not one word of the training captions is among the"),
        (
            ["A cat sits .", "A dog runs ."],
            "backbone",
            "No word occurs 4 times in the 3 words given. Give more",
        ),
        ([5, "A dog"], "init", "captions that are not text (1): 0.png (5); write"),
        ([["A dog", 5], "A dog"], "init", "captions that are not text (1): 0.png (5); write"),
        (["\ud800", "A dog"], "init", "captions that are not text (1)"),
        ([" ", "A dog"], "init", "images with an empty caption (1): 0.png;"),
        (["dog " * 100_000, "A dog"], "init", "more than 10,000 characters (1): 0.png;"),
        (["A dog"], "init", "found 0 and 1; give more, or name each image's split"),
    ],
)
def test_captions_that_teach_nothing_are_refused(
    captions: list[Any],
    start: str,
    complaint: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = folder_of(tmp_path / "data", captions)
    code = train(data, checkpoint) if start == "init" else _from_random(data)
    assert code == 1 and complaint in sentence(capsys)
    assert not (tmp_path / "out" / "best").exists()


def _from_random(data: Path) -> int:
    recipe = data.parent / "random.yaml"
    recipe.write_text(RECIPE + "model: {encoder: resnet18, encoder_layer: layer2, image_size: 64, hidden_size: 16}\n")
    out = str(data.parent / "out")
    return main(["train", str(data), "--out", out, "--recipe", str(recipe), "--backbone", "random"])


def test_some_of_them_are_left_out_and_counted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions = [
        ["A brown dog runs ❤️", "🐶", "5"],
        "🐱",
        "zebra zebra",
        ["A zebra runs .", "quagga"],
        ["A dog .", "A zebra ."],
    ]
    data = folder_of(tmp_path / "data", captions)
    assert train(data, checkpoint) == 0
    error = capsys.readouterr().err
    assert (
        "Left out: 3 captions without a word, of figures or signs only (0.png, 1.png), and with them 1 image " in error
    )
    assert "the most frequent: zebra (3), " in error and "quagga (1)" in error
    assert "validation captions: 1 of 4 words (25.0 %) are not among the" in error
    assert "left out: 2 of 4 training captions, without a word that the captioner has, and with them 1 image " in error
    (own,) = ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation.trained_on
    assert (own.images, own.captions) == (2, 2)
    assert report.main(["--data", str(data), "--model", str(checkpoint), "--out", str(tmp_path / "r.html")]) == 0
    assert "validation captions: 1 of 4 words (25.0 %)" in capsys.readouterr().err


def test_an_emoji_is_no_word_of_a_vocabulary() -> None:
    tokenizer = CaptionTokenizer.build(["A dog ❤️", "❤️ a dog 5"], min_count=2)
    assert [tokenizer.word(index) for index in range(4, len(tokenizer))] == ["a", "dog"]


def test_captions_in_another_language_are_not_measured(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", CHINESE, ["validation"] * 10)
    assert main(["evaluate", str(data), "--model", str(checkpoint)]) == 1
    assert "Not one word of the validation captions" in sentence(capsys)
    assert tune_generation.main(["--data", str(data), "--model", str(checkpoint)]) == 1
    assert "Not one word of the validation captions" in sentence(capsys)


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A picture of this machine, beside the data and not part of it."""
    path = tmp_path / "private" / "own.png"
    path.parent.mkdir()
    generated(99).save(path)
    return path


@pytest.mark.parametrize("way", ["../private/own.png", "absolute", "link", "linked folder"])
def test_a_picture_outside_of_the_data_is_read_only_where_that_is_allowed(
    way: str, private: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", SENTENCES)
    name = {"absolute": str(private), "link": "0.png", "linked folder": "more/own.png"}.get(way, way)
    if way == "link":
        (data / "0.png").unlink()
        (data / "0.png").symlink_to(private)
    if way == "linked folder":
        (data / "more").symlink_to(private.parent)
    (data / "metadata.jsonl").write_text((data / "metadata.jsonl").read_text().replace("0.png", name))
    assert train(data, checkpoint) == 1
    said = sentence(capsys)
    assert f"1 image lies outside of {data}: {name};" in said and "--allow-outside-paths" in said
    assert len(load_records(data, allow_outside_paths=True)) == 4
    if way == "absolute":
        assert train(data, checkpoint, "--allow-outside-paths") == 0


def test_a_name_that_two_files_have_is_not_guessed(tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", SENTENCES)
    for name in ("a", "b"):
        (data / name).mkdir()
        generated(0).save(data / name / "twice.png")
    (data / "metadata.jsonl").write_text('{"file_name": "twice.png", "text": "A dog", "split": "train"}\n')
    with pytest.raises(
        DataError, match=r"image names that several files have \(1\): twice\.png \(a/twice\.png, b/twice\.png\)"
    ):
        load_records(data)


def test_a_broken_photograph_stops_the_run_or_is_left_out_by_name(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", [SENTENCES[index % 4] for index in range(12)])
    for broken in ("3.png", "7.png"):
        (data / broken).write_bytes((data / broken).read_bytes()[:60])
    assert train(data, checkpoint) == 1
    said = sentence(capsys)
    assert "2 of 12 images cannot be read (" in said and "3.png" in said and "7.png" in said
    assert "--skip-broken-images" in said
    assert train(data, checkpoint, "--skip-broken-images") == 0
    error = capsys.readouterr().err
    assert error.count("Left out: ") == 2 and "3.png" in error and "7.png" in error
    (own,) = ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation.trained_on
    assert own.images == 9
    (data / "11.png").write_bytes(b"")
    assert main(["evaluate", str(data), "--model", str(checkpoint), "--skip-broken-images"]) == 1
    assert "1 of 1 images cannot be read" in capsys.readouterr().err


KARPATHY = {"filename": "0.png", "split": "val", "sentences": [{"raw": "A dog"}]}


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("metadata.jsonl", '{"file_name": "0.png", "text": "A do', "line 1: JSONDecodeError"),
        ("metadata.jsonl", '{"file_name": 5, "text": "A dog"}', "line 1: TypeError"),
        ("metadata.jsonl", '{"file_name": "0.png", "text": "A dog", "split": ["train"]}', "has the split"),
        ("metadata.jsonl", "[" * 100_000, "line 1: RecursionError"),
        ("metadata.jsonl", '{"file_name": "0.png", "text": "A dog", "id": ' + "1" * 5000 + "}", "line 1: ValueError"),
        ("metadata.jsonl", "", "holds no captions"),
        ("metadata.jsonl", json.dumps({"file_name": "x" * 5000, "text": "A dog"}), "missing images (1): xxx"),
        (
            "metadata.jsonl",
            json.dumps({"file_name": "\x1b[2Jgone\n", "text": "A dog"}),
            r"missing images (1): \u001b[2Jgone\u000a",
        ),
        (
            "dataset.json",
            json.dumps({"images": [{"filename": 5, "split": "val", "sentences": [{"raw": "x"}]}]}),
            "text",
        ),
        ("dataset.json", "[" * 100_000, "neither Karpathy's nor COCO's"),
        ("dataset.json", "5", "neither Karpathy's nor COCO's"),
        ("captions.csv", "path,caption\n0.png," + "dog " * 100_000, "line 2 cannot be read as a table: field larger"),
        ("dataset.json", "1" * 5000, "neither Karpathy's nor COCO's"),
        ("captions.csv", 'path,caption\n0.png,"A dog\n', "more"),
        ("captions.csv", '"' + "x" * 200_000, "line 1 cannot be read as a table: field larger"),
    ],
)
def test_torn_and_strange_files_are_one_sentence(
    file: str, text: str, complaint: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", SENTENCES)
    (data / "metadata.jsonl").unlink()
    (data / file).write_text(text)
    assert train(data, checkpoint) == 1
    said = sentence(capsys)
    assert complaint in said and len(said) < 1000 and said.isprintable()


@pytest.mark.parametrize("ending", ["\n", "\n\n  \n", "\r\n\r\n"])
def test_blank_lines_are_nothing(ending: str, tmp_path: Path) -> None:
    data = folder_of(tmp_path / "data", SENTENCES)
    lines = (data / "metadata.jsonl").read_text().split("\n")
    (data / "metadata.jsonl").write_text("\n".join([*lines[:2], "", *lines[2:]]) + ending, newline="")
    with_blanks = load_records(data)
    rows = [[record.path.name, record.captions[0], record.split] for record in with_blanks]
    table = data / "captions.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["path", "caption", "split"], *rows])
        file.write(ending + " , ,\n")
    assert load_records(table) == with_blanks and len(with_blanks) == 4


def test_a_folder_that_may_not_be_read_is_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder_of(tmp_path / "data", SENTENCES)
    data.chmod(0)
    user = os.geteuid()
    try:
        tmp_path.chmod(0o755)
        for folder in tmp_path.parents:
            if folder.name.startswith(("pytest-", "popen-")):
                folder.chmod(0o755)
        if user == 0:  # who may read everything
            os.seteuid(65534)
        with pytest.raises(DataError, match=r"data cannot be read \(Permission denied\); expected a folder"):
            load_records(data)
    finally:
        os.seteuid(user)
        data.chmod(0o755)


# -- Parquet -----------------------------------------------------------------------------------------------------------


def test_a_small_parquet_file_with_a_huge_cell_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    cell = pyarrow.array([b"\0" * 300_000_000])
    table = pyarrow.table({"image": cell, "caption": ["a dog"], "split": ["validation"]})
    pyarrow.parquet.write_table(table, tmp_path / "huge.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "huge.parquet").stat().st_size < 20_000
    done = forked.run("hf_captioner.cli", "evaluate", str(tmp_path), "--model", str(checkpoint))
    few = forked.run("hf_captioner.cli", "evaluate", str(tmp_path / "gone"), "--model", str(checkpoint))
    assert done.returncode == 1 and "column image unpacks to 300,000,010 bytes" in done.stderr
    assert done.memory < few.memory + 100_000, "KiB"


def test_a_value_that_many_rows_share_is_in_memory_once(checkpoint: Path, tmp_path: Path) -> None:
    shared = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 30, pyarrow.int32()), [b"\0" * 30_000_000])
    table = pyarrow.table({"image": shared, "caption": ["a dog"] * 30, "split": ["validation"] * 30})
    pyarrow.parquet.write_table(table, tmp_path / "shared.parquet", compression="zstd")
    done = forked.run("hf_captioner.cli", "evaluate", str(tmp_path), "--model", str(checkpoint))
    few = forked.run("hf_captioner.cli", "evaluate", str(tmp_path / "gone"), "--model", str(checkpoint))
    assert done.returncode == 1 and "cannot be read" in done.stderr
    assert done.memory < few.memory + 300_000, "KiB"


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("split", "../../../elsewhere", "has the split '../../../elsewhere'"),
        ("split", "/tmp", "has the split '/tmp'"),
        ("caption", "dog " * 100_000, "row 0 has a caption of more than 10,000 characters"),
        ("caption", "🐶", "No caption holds a word"),
    ],
)
def test_a_parquet_file_writes_nothing_beside_its_folder(
    column: str, value: str, complaint: str, tmp_path: Path, image_path: Path
) -> None:
    row = {"image": image_path.read_bytes(), "caption": "A dog", "split": "train", column: value}
    data = tmp_path / "data"
    data.mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), data / "some.parquet")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=complaint.replace(".", r"\.")):
        load_records(data, split_file=tmp_path / "out" / "splits.json")
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "out") for path in new)


def test_nothing_is_said_of_sound_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert len(load_records(folder_of(tmp_path / "data", SENTENCES))) == 4
    assert not caplog.records
