"""A captioner's habits, counted: the words it says too often or never, and how often it says men for women."""

from collections import Counter
from collections.abc import Sequence

MEN = frozenset(["man", "men", "boy", "boys", "guy", "guys", "male", "gentleman"])
WOMEN = frozenset(["woman", "women", "girl", "girls", "lady", "ladies", "female"])
AGREED = 3
"""Captions of an image that speak of the one and not of the other, so that people agree on it."""
SHOWN = 15
"""Words in each list."""


def bias_report(captions: Sequence[str], references: Sequence[Sequence[str]]) -> str:
    """What is said of images beside what people wrote of them, as Markdown."""
    written_each = [[_words(sentence) for sentence in group] for group in references]
    said = Counter(word for caption in captions for word in caption.split())
    written: dict[str, float] = {}
    for group in written_each:
        for word in (word for sentence in group for word in sentence):
            written[word] = written.get(word, 0) + 1 / len(group)
    surplus = {word: said[word] - written.get(word, 0) for word in {*said, *written}}
    ranked = sorted(surplus, key=lambda word: (surplus[word], word))

    def listed(words: Sequence[str]) -> str:
        return ", ".join(f"{word} {said[word]} ({written.get(word, 0):.0f})" for word in words)

    return (
        f"different words said: {len(said)}; written: {len(written)}\n"
        f"said too often, with how often one person writes it: {listed(ranked[: -SHOWN - 1 : -1])}\n"
        f"said too seldom: {listed(ranked[:SHOWN])}\n\n"
        "| people write of | images | it says so | it says the other |\n|---|---|---|---|\n"
        f"| men or boys only | {_of(MEN, WOMEN, captions, written_each)} |\n"
        f"| women or girls only | {_of(WOMEN, MEN, captions, written_each)} |\n"
    )


def _words(sentence: str) -> list[str]:
    return sentence.lower().replace(".", " ").replace(",", " ").split()


def _of(
    asked: frozenset[str], other: frozenset[str], captions: Sequence[str], references: Sequence[Sequence[Sequence[str]]]
) -> str:
    images = says_so = says_other = 0
    for caption, group in zip(captions, references, strict=True):
        speak = sum(bool(asked.intersection(words)) for words in group)
        of_other = sum(bool(other.intersection(words)) for words in group)
        if speak >= AGREED and not of_other:
            said = set(caption.split())
            images += 1
            says_so += bool(said & asked)
            says_other += bool(said & other and not said & asked)
    return f"{images} | {says_so} | {says_other}"
