"""Sentences become words, words become sentences, and a saved tokenizer is the same one."""

from pathlib import Path

import pytest

from hf_captioner.errors import TokenizerError
from hf_captioner.modeling.tokenizer import CaptionTokenizer


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
