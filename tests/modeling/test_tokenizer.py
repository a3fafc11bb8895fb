"""Sentences become words, words become sentences, and a saved tokenizer is the same one."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from hf_captioner.errors import TokenizerError
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.modeling.tokenizer import MAX_BYTES, SPECIAL, CaptionTokenizer


def test_a_sentence_comes_back_as_its_known_words(tiny_tokenizer: CaptionTokenizer) -> None:
    ids = tiny_tokenizer.encode("A Brown DOG, jumps over the zebra!")
    assert tiny_tokenizer.unknown_id in ids
    assert tiny_tokenizer.decode(ids) == "a brown dog jumps over the"
    assert tiny_tokenizer.decode([tiny_tokenizer.start_id, *ids[:3], tiny_tokenizer.end_id]) == "a brown dog"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Tri-colored DOG's 2 paws/legs.", ["tri", "colored", "dogs", "paws", "legs"]),
        ("  \t", []),
        ("caf\u00e9 <end>", ["caf\u00e9", "end"]),
    ],
)
def test_letters_are_kept_and_the_rest_is_not(tiny_tokenizer: CaptionTokenizer, text: str, words: list[str]) -> None:
    assert tiny_tokenizer.split(text) == words


def test_rare_words_are_left_out_and_the_order_is_stable() -> None:
    built = CaptionTokenizer.build(["b b b a a c", "c x"], min_count=2)
    assert [built.word(i) for i in range(len(built))] == ["<pad>", "<start>", "<end>", "<unk>", "b", "a", "c"]
    with pytest.raises(TokenizerError, match="No word occurs 9 times in the 8"):
        CaptionTokenizer.build(["b b b a a c", "c x"], min_count=9)


def test_saved_and_loaded_it_is_the_same(tiny_tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(tiny_tokenizer.to_json())
    loaded = CaptionTokenizer.load(tmp_path / "tokenizer.json")
    sentence = "A man's t-shirt on the beach, unheard"
    assert loaded.encode(sentence) == tiny_tokenizer.encode(sentence)
    assert len(loaded) == len(tiny_tokenizer)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"not": "a tokenizer"}')
    with pytest.raises(TokenizerError, match="not a tokenizer"):
        CaptionTokenizer.load(tmp_path / "tokenizer.json")


# -- what is refused ---------------------------------------------------------------------------------------------------

FROZEN = Path(__file__).parents[1] / "hub" / "frozen"


@pytest.mark.parametrize("folder", [FROZEN / "format0", FROZEN / "format1", bundled_checkpoint()], ids=lambda f: f.name)
def test_what_every_version_wrote_is_read_and_written_again_byte_for_byte(folder: Path) -> None:
    written = (folder / "tokenizer.json").read_text(encoding="utf-8")
    assert CaptionTokenizer.load(folder / "tokenizer.json").to_json() == written


def test_the_tokenizers_library_reads_it_as_the_same(tiny_tokenizer: CaptionTokenizer) -> None:
    theirs = Tokenizer.from_str(tiny_tokenizer.to_json())
    for sentence in ("A man's T-SHIRT\u00a0on/the be\u0301ach,\n2 dogs \U0001f600", ""):
        assert theirs.encode(sentence).ids == tiny_tokenizer.encode(sentence)
        assert theirs.normalizer.normalize_str(sentence).split() == tiny_tokenizer.split(sentence)


def replace(pattern: str, content: str = "a") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


OTHER_PIPELINES: dict[str, dict[str, Any]] = {
    "a regular expression that panics": {"normalizer": replace("(a+)+$")},
    "replacements that double": {"normalizer": {"type": "Sequence", "normalizers": [replace("a", "aa" * 99)] * 9}},
    "no normalizer": {"normalizer": None},
    "another pre-tokenizer": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}},
    "a post-processor": {"post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["a", 1]}},
    "a decoder": {"decoder": replace("(a+)+$")},
    "truncation": {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}},
    "padding": {"padding": {"strategy": {"Fixed": 1 << 40}, "direction": "Right"}},
    "added tokens": {"added_tokens": [{"id": 4, "content": "a", "special": True}]},
    "a key more": {"surprise": 1},
    "another version": {"version": "2.0"},
    "another model": {"model": {"type": "BPE", "vocab": {}, "merges": []}},
    "another unknown word": {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "dog"}},
    "no model": {"model": None},
}


@pytest.mark.parametrize("change", OTHER_PIPELINES)
def test_any_other_pipeline_is_refused_in_one_sentence_and_never_reaches_the_library(
    tiny_tokenizer: CaptionTokenizer, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**json.loads(tiny_tokenizer.to_json()), **OTHER_PIPELINES[change]}
    monkeypatch.setattr("hf_captioner.modeling.tokenizer.Tokenizer", None)
    refused(tmp_path, json.dumps(values))


VOCABULARIES: dict[str, Any] = {
    "a gap": {"a": 5},
    "an id twice": {"a": 3},
    "a negative id": {"a": -1},
    "a large id": {"a": 1 << 70},
    "a boolean": {"a": True},
    "a text for an id": {"a": "4"},
    "no word": {"": 4},
    "two words": {"a dog": 4},
    "a control character": {"a\x1b[31m": 4},
    "a line break": {"a\nb": 4},
    "HTML": {"<script>": 4},
    "half a character": {"\ud800": 4},
    "a direction mark": {"a\u202e": 4},
    "a very long word": {"a" * 101: 4},
}


@pytest.mark.parametrize("change", VOCABULARIES)
def test_a_vocabulary_that_training_would_not_give_is_refused(
    tiny_tokenizer: CaptionTokenizer, tmp_path: Path, change: str
) -> None:
    values = json.loads(tiny_tokenizer.to_json())
    values["model"]["vocab"] = {**{word: i for i, word in enumerate(SPECIAL)}, **VOCABULARIES[change]}
    refused(tmp_path, json.dumps(values))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "null", "{}", "[" * 100_000, '{"version": ' + "9" * 5000 + "}", '{"normalizer": NaN}', "\udcff"],
    ids=range(9),
)
def test_what_is_no_tokenizer_at_all_is_refused(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TokenizerError, match=f"has more than {MAX_BYTES:,} bytes"):
        CaptionTokenizer.load(tmp_path / "tokenizer.json")


def refused(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a tokenizer\.json of a captioner: .") as caught:
        CaptionTokenizer.load(folder / "tokenizer.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
