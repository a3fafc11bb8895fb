"""The experiment takes photographs with new words, trains on them alone, and counts what is said of the others."""

import json
import re
from pathlib import Path

import pytest

from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training import metrics
from hf_captioner.training.data import Record
from tests.conftest import generated, write_table
from train.own_photographs import choose, compare, main

ANIMALS = ("goat", "zebra", "quagga")


@pytest.mark.usefixtures("fresh_accelerate")
def test_it_prints_what_was_learned_and_what_was_forgotten(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "has_java", lambda: False)
    data, old = tmp_path / "data", tmp_path / "old"
    data.mkdir()
    old.mkdir()
    rows = []
    for index in range(40):
        generated(index).save(data / f"{index:02}.png")
        rows.append(
            {"file_name": f"{index:02}.png", "text": f"A {ANIMALS[index // 2 % 3]} runs on grass", "split": "train"}
        )
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = write_table(old, ["train"] * 2 + ["validation"] * 3)
    flags = f"--data {data} --old {table} --out {tmp_path / 'out'} --init {checkpoint} --photographs 18"
    assert main(flags.split()) == 0
    said = capsys.readouterr().out
    assert "18 photographs added 3 words" in said and "22 others have captions that name a new word" in said
    found = re.search(r"CIDEr on 3 validation images of the old data: (\S+) before, (\S+) after", said)
    assert found and all(float(number) >= 0 for number in found.groups())
    taken = {path.name for path in (tmp_path / "out" / "photographs").glob("*.png")}
    assert len(taken) == 18 and all(int(name[:2]) % 2 == 0 for name in taken), "every other one is left to ask about"


def test_the_photographs_of_the_most_frequent_new_words_are_taken() -> None:
    tokenizer = CaptionTokenizer(["<pad>", "<start>", "<end>", "<unk>", "a", "dog"])
    captions = ["a dog", "a dog", "a yak", "a gnu", "a gnu", "a gnu", "a gnu", "a dog", "a yak"]
    records = [Record(Path(f"{index}.png"), (caption,), "train") for index, caption in enumerate(captions)]
    assert [record.path.name for record in choose(records, tokenizer, 3)] == ["4.png", "6.png", "2.png"]


def test_a_right_word_is_one_that_a_person_used_of_the_photograph() -> None:
    tokenizer = CaptionTokenizer(["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "gnu", "yak"])
    held_out = [Record(Path(f"{i}.png"), (text,), "train") for i, text in enumerate(["a gnu", "a gnu", "a yak"])]
    learned = compare(["a gnu", "a yak", "a dog"], held_out, {"gnu", "yak"}, tokenizer)
    assert (learned.said, learned.right) == (2, 1) and len(learned.examples) == 2
