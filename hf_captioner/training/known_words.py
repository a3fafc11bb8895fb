"""Which words of a data set's captions a captioner has: it can say no others, and learns nothing from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hf_captioner.errors import DataError
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.data import Record
from hf_captioner.training.rows import listed


@dataclass(frozen=True)
class KnownWords:
    """The captions of some records, as a captioner's vocabulary sees them."""

    vocabulary: int
    """Words that the captioner has."""
    counts: Counter[str]
    """Every word of the captions, known or not."""
    unknown: Counter[str]
    """Those that the vocabulary lacks."""

    def __str__(self) -> str:
        """A sentence on the unknown words."""
        said = ", ".join(f"{listed([word])} ({count})" for word, count in self.unknown.most_common(10))
        total, missing = self.counts.total(), self.unknown.total()
        share = f"{missing:,} of {total:,} words ({100 * missing / total:.1f} %)"
        return f"{share} are not among the {self.vocabulary:,} that the captioner has; the most frequent: {said}"


def known_words(records: Sequence[Record], tokenizer: CaptionTokenizer, split: str) -> KnownWords:
    """What the vocabulary lacks of the captions of a split. Raises DataError where that is everything."""
    counts = Counter(word for record in records for caption in record.captions for word in tokenizer.split(caption))
    unknown = Counter({word: count for word, count in counts.items() if not tokenizer.knows(word)})
    if counts.total() == unknown.total():
        examples = listed(record.captions[0] for record in records)
        raise DataError(
            f"Not one word of the {split} captions is among the {len(tokenizer):,} that the captioner has: {examples}; "
            "it says no others, so take captions in its language, or train it on more of these: a word that the "
            "training captions hold often enough (`min_count` of the recipe) is added."
        )
    return KnownWords(len(tokenizer), counts, unknown)


def learnable(records: Sequence[Record], tokenizer: CaptionTokenizer, found: KnownWords) -> list[Record]:
    """The records with those captions that hold a known word; an image with no other caption is left out."""

    def is_known(caption: str) -> bool:
        return any(word not in found.unknown for word in tokenizer.split(caption))

    kept = [replace(record, captions=tuple(filter(is_known, record.captions))) for record in records]
    return [record for record in kept if record.captions]
