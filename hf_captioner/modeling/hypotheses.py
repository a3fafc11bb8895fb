"""The tensors of a search: the hypotheses that are finished, and what each step chose, to backtrack from the former."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEG_INF = float("-inf")


@dataclass(frozen=True)
class FinishedHypotheses:
    """The k best finished hypotheses of each group, (B, G, k) each; an empty slot has the score NEG_INF."""

    score: Tensor
    place: Tensor
    """Number of words, which is the step at which the row finished."""
    row: Tensor
    """Which of the K hypotheses of that step."""
    finished: Tensor

    def add(self, other: "FinishedHypotheses") -> "FinishedHypotheses":
        """The best k of both; a finished one goes before one that was cut at max_length."""
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        score, place, row, finished = (torch.cat(part, -1) for part in parts)
        order = (score.double() - 1e6 * ~finished).topk(self.score.shape[-1]).indices
        return FinishedHypotheses(*(part.gather(-1, order) for part in (score, place, row, finished)))

    def scatter(self, running: Tensor, images: int) -> "FinishedHypotheses":
        """Scatter from the running images (A,) to all of them; the others' slots are empty."""
        if len(running) == images:
            return self
        score, *rest = (_scatter(part, running, images) for part in vars(self).values())
        done = torch.ones(images, dtype=torch.bool, device=score.device).index_fill(0, running, False)
        return FinishedHypotheses(score.masked_fill(done[:, None, None], NEG_INF), *rest)

    def closed(self, running: Tensor, total: Tensor) -> Tensor:
        """(A, G) bool: groups of the running images (A,) that are done, because they are full or none of their running
        hypotheses, with `total` (A, G, k), is possible."""
        return (self.score[running].amin(-1) > NEG_INF) | (total.amax(-1) == NEG_INF)


@dataclass(frozen=True)
class StepRecord:
    """What one step chose, for the backtracking at the end; (B, K) each unless stated otherwise.

    Entries of images finished before this step are undefined.
    """

    words: Tensor
    parents: Tensor
    """The hypothesis that each chosen word continues."""
    log_probs: Tensor
    attention: Tensor
    """(B, K, N), of the hypotheses before the choice."""
    likeliest: Tensor
    """(B, K, A): the largest log-probabilities of the hypotheses before the choice."""
    likeliest_ids: Tensor

    def scatter(self, running: Tensor, images: int) -> "StepRecord":
        """Scatter from the running images (A,) to all of them."""
        return StepRecord(*(_scatter(part, running, images) for part in vars(self).values()))


def _scatter(part: Tensor, running: Tensor, images: int) -> Tensor:
    """(A, ...) of the running images (A,) -> (B, ...), zero for the others."""
    if len(running) == images:
        return part
    return part.new_zeros((images, *part.shape[1:])).index_copy(0, running, part)


def backtrack(place: Tensor, row: Tensor, records: Sequence[StepRecord]) -> tuple[Tensor, Tensor]:
    """Backtrack from hypotheses (B, P) that have `place` words and finish in `row`.

    Returns their words (T, B, P), and the rows (T + 1, B, P) before each step and after the last; entries beyond a
    hypothesis' end are undefined.
    """
    rows, words = [row], []
    for t, record in reversed(list(enumerate(records))):
        words.append(record.words.gather(1, row))
        row = torch.where(place > t, record.parents.gather(1, row), row)
        rows.append(row)
    return torch.stack(words[::-1]), torch.stack(rows[::-1])
