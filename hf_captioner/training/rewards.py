"""Rewards of self-critical training: CIDEr-D and BLEU-4 of token ids, equal to pycocoevalcap's on the same tokens."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

Tokens = Sequence[int]
Counts = dict[tuple[int, ...], float]
TINY, SMALL = 1e-15, 1e-9
"""Added by pycocoevalcap to counts that may be 0."""


def ngrams(tokens: Tokens, longest: int = 4) -> Counter[tuple[int, ...]]:
    """How often each n-gram of 1 to `longest` tokens occurs."""
    return Counter(tuple(tokens[i : i + size]) for size in range(1, longest + 1) for i in range(len(tokens) - size + 1))


class CiderD:
    """CIDEr-D (Vedantam et al. 2015) of token ids against an image's references, as pycocoevalcap computes it.

    The document frequencies are those of the references given. The end token counts as a word like any other, so that
    a caption that breaks off ("a man in a") loses what a finished one gains.
    """

    N, SIGMA = 4, 6.0

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        self.log_documents = math.log(len(references))
        counted = [[ngrams(reference) for reference in group] for group in references]
        seen = Counter(ngram for group in counted for ngram in {ngram for counts in group for ngram in counts})
        self.frequency = dict(seen)
        self.references = [[self._vector(counts) for counts in group] for group in counted]

    def __call__(self, image: int, tokens: Tokens) -> float:
        """The score of one caption, 0 to 10."""
        found, norms, length = self._vector(ngrams(tokens))
        total = 0.0
        for reference, reference_norms, reference_length in self.references[image]:
            products = [0.0] * self.N
            for ngram, weight in found.items():
                other = reference.get(ngram)
                if other is not None:
                    products[len(ngram) - 1] += min(weight, other) * other
            closeness = math.exp(-((length - reference_length) ** 2) / (2 * self.SIGMA**2))
            for product, norm, reference_norm in zip(products, norms, reference_norms, strict=True):
                if norm and reference_norm:
                    total += closeness * product / (norm * reference_norm)
        return 10 * total / (self.N * len(self.references[image]))

    def _vector(self, counts: Counter[tuple[int, ...]]) -> tuple[Counts, list[float], int]:
        """tf-idf weights, their norm for each n-gram size, and the length, counted in bigrams as pycocoevalcap does."""
        weights = {
            ngram: count * (self.log_documents - math.log(max(1, self.frequency.get(ngram, 0))))
            for ngram, count in counts.items()
        }
        norms = [0.0] * self.N
        for ngram, weight in weights.items():
            norms[len(ngram) - 1] += weight**2
        return weights, [math.sqrt(norm) for norm in norms], sum(c for ngram, c in counts.items() if len(ngram) == 2)


def cider_of_data_sets(
    references: Sequence[Sequence[Tokens]], data_sets: Sequence[str]
) -> Callable[[int, Tokens], float]:
    """(image, tokens) -> CIDEr-D, each data set with its own document frequencies.

    data_sets: the name of each image's. A word that is rare in one data set may be common in another.
    """
    places: list[int] = []
    members: dict[str, list[Sequence[Tokens]]] = {}
    for name, group in zip(data_sets, references, strict=True):
        own = members.setdefault(name, [])
        places.append(len(own))
        own.append(group)
    ciders = {name: CiderD(own) for name, own in members.items()}
    return lambda image, tokens: ciders[data_sets[image]](places[image], tokens)


class Bleu4:
    """BLEU-4 (Papineni et al. 2002) of one caption, with the closest reference's length."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        self.references = []
        for group in references:
            most: Counter[tuple[int, ...]] = Counter()
            for reference in group:
                most |= ngrams(reference)
            self.references.append((most, [len(reference) for reference in group]))

    def __call__(self, image: int, tokens: Tokens) -> float:
        """The score of one caption, 0 to 1."""
        if not tokens:
            return 0.0
        most, lengths = self.references[image]
        correct = [0, 0, 0, 0]
        for ngram, count in ngrams(tokens).items():
            correct[len(ngram) - 1] += min(count, most[ngram])
        product = 1.0
        for size, right in enumerate(correct):
            product *= (right + TINY) / (max(0, len(tokens) - size) + SMALL)
        closest = min(lengths, key=lambda length: (abs(length - len(tokens)), length))
        ratio = (len(tokens) + TINY) / (closest + SMALL)
        return float(product**0.25 * (math.exp(1 - 1 / ratio) if ratio < 1 else 1))
