"""Counts what a captioner says too often or too seldom, and how often it says men for women."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from hf_captioner.hub.evaluation import Habits

MEN = frozenset(["man", "men", "boy", "boys", "guy", "guys", "male", "gentleman"])
WOMEN = frozenset(["woman", "women", "girl", "girls", "lady", "ladies", "female"])
AGREEMENT = 3
"""References of an image that mention the one, where none mentions the other: people agree on it."""
LISTED = 15
"""Words listed as said too often, and as many as said too seldom."""


def bias_report(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Habits:
    """Compare one caption an image with what people wrote of these images, at least one sentence each."""
    words = [[_words(sentence) for sentence in group] for group in references]
    said = Counter(word for caption in captions for word in caption.split())
    written: defaultdict[str, float] = defaultdict(float)  # the mean over the people who wrote
    for group in words:
        for word in (word for sentence in group for word in sentence):
            written[word] += 1 / len(group)
    words_written = len(written)
    ranked = sorted({*said, *written}, key=lambda word: (written[word] - said[word], word))
    listed = list(dict.fromkeys([*ranked[:LISTED], *ranked[-LISTED:]]))
    return Habits(
        images=len(captions),
        words_said=len(said),
        words_written=words_written,
        said={word: float(said[word]) for word in listed},
        written={word: round(written[word], 1) for word in listed},
        men=_agreement(MEN, WOMEN, captions, words),
        women=_agreement(WOMEN, MEN, captions, words),
    )


def to_markdown(habits: Habits) -> str:
    """The counts as a person reads them."""

    def listed(words: Iterable[str]) -> str:
        return ", ".join(f"{word} {habits.said[word]:.0f} ({habits.written[word]:.0f})" for word in words)

    surplus = {word: count - habits.written[word] for word, count in habits.said.items()}
    often = sorted((word for word in surplus if surplus[word] > 0), key=lambda word: (-surplus[word], word))
    seldom = sorted((word for word in surplus if surplus[word] < 0), key=lambda word: (surplus[word], word))
    men, women = (" | ".join(map(str, counts)) for counts in (habits.men, habits.women))
    return (
        f"different words said: {habits.words_said}; written: {habits.words_written}\n"
        f"said too often (and how often one person writes it): {listed(often)}\n"
        f"said too seldom: {listed(seldom)}\n\n"
        "| people agree on | images | captions that say so | captions that say the other |\n|---|---|---|---|\n"
        f"| men or boys only | {men} |\n"
        f"| women or girls only | {women} |"
    )


def _words(sentence: str) -> list[str]:
    return sentence.lower().replace(".", " ").replace(",", " ").split()


def _agreement(
    asked: frozenset[str], other: frozenset[str], captions: Sequence[str], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[int, int, int]:
    """Images whose references agree on `asked`; of these, captions that say so; captions that say `other` instead."""
    images = says_so = says_other = 0
    for caption, group in zip(captions, references, strict=True):
        mention_asked = sum(bool(asked.intersection(words)) for words in group)
        mention_other = sum(bool(other.intersection(words)) for words in group)
        if mention_asked >= AGREEMENT and not mention_other:
            said = set(caption.split())
            images += 1
            says_so += bool(said & asked)
            says_other += bool(said & other and not said & asked)
    return images, says_so, says_other
