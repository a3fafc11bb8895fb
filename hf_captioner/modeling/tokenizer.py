"""Sentences to word ids and back, on the `tokenizers` library; saved as tokenizer.json.

The file is one pipeline and a vocabulary. Only the vocabulary differs between captioners, so only that is taken from a
file, and the pipeline is always the one below: another one could run for hours, or crash the library.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import WhitespaceSplit

from hf_captioner.errors import TokenizerError, shown

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
BREAKS, NO_LETTERS = r"[-/\s]+", r"[^\p{L}\p{M} ]+"

PIPELINE: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Lowercase"},
            {"type": "Replace", "pattern": {"Regex": BREAKS}, "content": " "},
            {"type": "Replace", "pattern": {"Regex": NO_LETTERS}, "content": ""},
        ],
    },
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
}
"""All of tokenizer.json but its `model`, as every version has written it."""

MAX_BYTES = 1 << 24
"""Of a tokenizer.json."""
MAX_WORDS = 1_000_000
MAX_WORD_CHARACTERS = 100


class CaptionTokenizer:
    """Whole words in lower case; hyphens and slashes become spaces, and whatever else is not a letter is removed."""

    pad_id, start_id, end_id, unknown_id = range(len(SPECIAL))

    def __init__(self, words: Sequence[str]) -> None:
        """words: the vocabulary in the order of its ids, SPECIAL first. Raises TokenizerError for any other."""
        found = tuple(words[: len(SPECIAL)])
        if found != SPECIAL:
            raise TokenizerError(f"The tokenizer's first words are {shown(found)}; expected {SPECIAL}.")
        if len(words) > MAX_WORDS:
            raise TokenizerError(f"The tokenizer has {len(words):,} words; expected at most {MAX_WORDS:,}.")
        wrong = next((word for word in words[len(SPECIAL) :] if not _is_word(word)), None)
        if wrong is not None:
            raise TokenizerError(
                f"The tokenizer has the word {shown(wrong)}; expected letters only, at most {MAX_WORD_CHARACTERS}."
            )
        vocabulary = {word: i for i, word in enumerate(words)}
        if len(vocabulary) < len(words):
            twice = Counter(words).most_common(1)[0][0]
            raise TokenizerError(f"The tokenizer has the word {shown(twice)} twice; expected each once.")
        self._tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
        self._tokenizer.normalizer = Normalizers(
            [NFC(), Lowercase(), Replace(Regex(BREAKS), " "), Replace(Regex(NO_LETTERS), "")]
        )
        self._tokenizer.pre_tokenizer = WhitespaceSplit()

    def __len__(self) -> int:
        """V, the size of the vocabulary."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Ids of the sentence's words, without start and end; a word outside the vocabulary is `unknown_id`."""
        return self._tokenizer.encode(text).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The sentence, without special tokens."""
        return " ".join(self.word(i) for i in ids if i >= len(SPECIAL))

    def word(self, word_id: int) -> str:
        word = self._tokenizer.id_to_token(word_id)
        if word is None:
            raise TokenizerError(f"There is no word {word_id}; the tokenizer has {len(self)}.")
        return word

    @property
    def words(self) -> list[str]:
        """The vocabulary in the order of its ids."""
        return [self.word(word_id) for word_id in range(len(self))]

    def knows(self, word: str) -> bool:
        """Whether all of a word is in the vocabulary."""
        ids = self.encode(word)
        return bool(ids) and self.unknown_id not in ids

    def split(self, text: str) -> list[str]:
        """The sentence's words as `encode` sees them, known or not."""
        normal = self._tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def count(self, captions: Iterable[str]) -> Counter[str]:
        """How often the captions hold each word, known or not, that a vocabulary may hold."""
        words = Counter(word for caption in captions for word in self.split(caption))
        # An emoji leaves a lone accent, which is no word.
        return Counter({w: n for w, n in words.items() if _is_word(w) and any(map(str.isalpha, w))})

    def to_json(self) -> str:
        """The content of tokenizer.json."""
        vocabulary = {word: i for i, word in enumerate(self.words)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
        return json.dumps({**PIPELINE, "model": model}, indent=2, ensure_ascii=False)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read tokenizer.json. Raises TokenizerError for any other file, or one of more than MAX_BYTES."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise TokenizerError(f"{path} has more than {MAX_BYTES:,} bytes; a captioner's has fewer.")
            values = json.loads(content)
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, TokenizerError):
                raise
            raise TokenizerError(f"{path} is not a tokenizer.json of a captioner: {error}.") from error
        try:
            return cls(_words(values))
        except TokenizerError as error:
            raise TokenizerError(f"{path} is not a tokenizer.json of a captioner: {error}") from error

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int) -> Self:
        """The words that occur at least `min_count` times in the captions, most frequent first, then by alphabet."""
        counts = cls(SPECIAL).count(captions)
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise TokenizerError(f"No word occurs {min_count} times in the {counts.total()} words given.")
        return cls([*SPECIAL, *kept])


def _words(values: Any) -> list[str]:
    """The vocabulary of what a tokenizer.json holds, in the order of its ids; TokenizerError for another pipeline."""
    if not isinstance(values, dict):
        raise TokenizerError(f"it holds a {type(values).__name__}; expected a JSON object.")
    for name in (*PIPELINE, *values):
        if name != "model" and values.get(name, KeyError) != PIPELINE.get(name, KeyError):
            raise TokenizerError(
                f"its {shown(name)} is not what every captioner has; save the captioner with this package."
            )
    model = values.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict) or model != {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}:
        raise TokenizerError("its model is not WordLevel with a vocabulary; save the captioner with this package.")
    if any(type(i) is not int for i in vocabulary.values()) or sorted(vocabulary.values()) != [*range(len(vocabulary))]:
        raise TokenizerError("its words are not numbered from 0 on; save the captioner again.")
    return sorted(vocabulary, key=lambda word: vocabulary[word])


def _is_word(word: str) -> bool:
    """Whether it is letters and their marks, or characters that are newer than this Python (category Cn)."""
    letters = all(
        unicodedata.category(character)[0] in "LM" or unicodedata.category(character) == "Cn" for character in word
    )
    return 0 < len(word) <= MAX_WORD_CHARACTERS and letters
