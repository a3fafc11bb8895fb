"""The vocabulary of a captioner that is trained further: it grows by the words that the new captions hold often."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hf_captioner.modeling.tokenizer import SPECIAL, CaptionTokenizer
from hf_captioner.training.rows import counted, listed

BIAS = "output.bias"
WORD_TENSORS = ("embedding.weight", "output.weight", BIAS)
"""The decoder's tensors with a row for each word; the second is the first where they are tied."""
RARER = 2.0
"""By how much the bias of a new word begins below that of the words in its place: e^2 times less likely, it is not said
of every image before it is learned."""

Context = tuple[int | None, int | None]
"""The ids of the words before and after a word; None where it does not matter."""


@dataclass(frozen=True)
class NewWords:
    """The words that a vocabulary grew by."""

    counts: Counter[str] = field(default_factory=Counter)
    """How often the training captions hold each."""
    min_count: int = 1

    def __len__(self) -> int:
        return len(self.counts)

    def __str__(self) -> str:
        """A sentence on them, with the ten most frequent and the rarest."""
        said = ", ".join(f"{listed([word])} ({count})" for word, count in self.counts.most_common(10))
        more = ", ..." if len(self) > 10 else ""
        rarest = counted(min(self.counts.values()), "time")
        return (
            f"added {counted(len(self), 'word')} that the training captions hold at least {self.min_count} "
            f"times (the rarest {rarest}): {said}{more}"
        )


def grow(tokenizer: CaptionTokenizer, captions: Sequence[str], min_count: int) -> tuple[CaptionTokenizer, NewWords]:
    """A tokenizer with the same words under the same ids, and behind them the new ones of the captions, as `build`
    takes and orders them. Raises TokenizerError where these are too many."""
    counts = tokenizer.count(captions)
    new = Counter({word: n for word, n in counts.items() if n >= min_count and not tokenizer.knows(word)})
    added = sorted(new, key=lambda word: (-new[word], word))
    return CaptionTokenizer([*tokenizer.words, *added]), NewWords(
        Counter({word: new[word] for word in added}), min_count
    )


def grown_weights(
    weights: dict[str, Tensor], tokenizer: CaptionTokenizer, captions: Sequence[str]
) -> dict[str, Tensor]:
    """A decoder's weights with rows for the words that `tokenizer` has and they lack, the other rows as they were.

    A new word begins as the mean of the known words that stand in its place in the captions: with e(v) the row of word
    v, and w occurring n times, between the words (l_i, r_i),

        e(w) = 1/n sum_i sum_v p(v | l_i, r_i) e(v),

    p the share of v among the known words that the captions hold between l_i and r_i; where they hold none there, among
    those after l_i, else those before r_i, else among all known words, each once. Its bias begins RARER lower.
    """
    known = len(weights[WORD_TENSORS[0]])
    shares = [*_shares(tokenizer, captions, known)]
    if not shares:
        return weights
    means = {name: torch.stack(shares) @ weights[name] for name in WORD_TENSORS}
    means[BIAS] -= RARER
    return {**weights, **{name: torch.cat([weights[name], rows]) for name, rows in means.items()}}


def _shares(tokenizer: CaptionTokenizer, captions: Sequence[str], known: int) -> Iterator[Tensor]:
    """(known,) for each new word: the weights of the known words in its mean, which sum to 1."""
    stands: defaultdict[Context, Counter[int]] = defaultdict(Counter)  # the known words that stand in a context
    places: defaultdict[int, list[list[Context]]] = defaultdict(list)  # the contexts of each place of a new word
    for caption in captions:
        ids = [tokenizer.start_id, *tokenizer.encode(caption), tokenizer.end_id]
        for left, word, right in zip(ids, ids[1:], ids[2:], strict=False):
            contexts: list[Context] = [(left, right), (left, None), (None, right)]
            if word >= known:
                places[word].append(contexts)
            elif word >= len(SPECIAL):
                for context in contexts:
                    stands[context][word] += 1
    everything = Counter(range(len(SPECIAL), known))
    for word in range(known, len(tokenizer)):
        share = torch.zeros(known)
        for contexts in places[word]:
            found = next((stands[context] for context in contexts if stands[context]), everything)
            share[list(found)] += torch.tensor(list(found.values())) / found.total()
        yield share / len(places[word])
