"""Sentences to word ids and back, on the `tokenizers` library; saved as tokenizer.json."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFC, Lowercase, Replace
from tokenizers.normalizers import Sequence as Normalizers
from tokenizers.pre_tokenizers import WhitespaceSplit

from hf_captioner.errors import TokenizerError

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")


class CaptionTokenizer:
    """Whole words in lower case; hyphens and slashes become spaces, and whatever else is not a letter is removed."""

    pad_id, start_id, end_id, unknown_id = range(len(SPECIAL))

    def __init__(self, tokenizer: Tokenizer) -> None:
        found = tuple(tokenizer.id_to_token(i) for i in range(len(SPECIAL)))
        if found != SPECIAL:
            raise TokenizerError(f"The tokenizer's first words are {found}; expected {SPECIAL}.")
        self._tokenizer = tokenizer

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

    def knows(self, word: str) -> bool:
        """Whether all of a word is in the vocabulary."""
        ids = self.encode(word)
        return bool(ids) and self.unknown_id not in ids

    def split(self, text: str) -> list[str]:
        """The sentence's words as `encode` sees them, known or not."""
        normal = self._tokenizer.normalizer.normalize_str(text)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    def to_json(self) -> str:
        """The content of tokenizer.json."""
        return self._tokenizer.to_str(pretty=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read tokenizer.json. Raises TokenizerError for any other file."""
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception, whatever is wrong
            raise TokenizerError(f"{path} is not a tokenizer.json of the tokenizers library: {error}") from error
        return cls(tokenizer)

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int) -> Self:
        """The words that occur at least `min_count` times in the captions, most frequent first, then by alphabet."""
        empty = cls(_word_level({word: i for i, word in enumerate(SPECIAL)}))
        counts = Counter(word for caption in captions for word in empty.split(caption))
        kept = sorted((word for word, count in counts.items() if count >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise TokenizerError(f"No word occurs {min_count} times in the {counts.total()} words given.")
        return cls(_word_level({word: i for i, word in enumerate((*SPECIAL, *kept))}))


def _word_level(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = Normalizers(
        [NFC(), Lowercase(), Replace(Regex(r"[-/\s]+"), " "), Replace(Regex(r"[^\p{L}\p{M} ]+"), "")]
    )
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer
