"""Greedy, beam, diverse beam search and sampling, for all photographs and hypotheses at once.

One loop serves them all. Each photograph has G groups of k hypotheses (K = G * k):
    greedy          G = 1, k = 1
    beam            G = 1, k = beams
    diverse beam    G = beam_groups, k = beams / beam_groups; a group avoids the words earlier groups chose
    sampling        G = num_captions, k = 1; the choice is by perturbed log-probabilities (Gumbel-max)
A group is done when k of its hypotheses have ended. Nothing here knows of images: a stepper is anything with `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from hf_captioner.config import SearchConfig

NEVER = float("-inf")


class SearchState(Protocol):
    def select(self, rows: Tensor) -> Self: ...


class StepResult(Protocol):
    @property
    def log_probs(self) -> Tensor: ...
    @property
    def attention(self) -> Tensor: ...
    @property
    def state(self) -> Any: ...


class Stepper(Protocol):
    def step(self, words: Tensor, state: Any, /) -> StepResult:
        """Read words (R,); give log_probs (R, V) of the next word, attention (R, N) and the new state."""


@dataclass(frozen=True)
class Hypothesis:
    """A caption as ids, without start and end token."""

    ids: list[int]
    log_probs: list[float]
    """Of each id, under the model's own distribution."""
    score: float
    """Sum of the log-probabilities, the end token's included, divided by length ** length_penalty."""
    finished: bool
    """False for a caption cut at max_length."""
    attention: Tensor
    """(T, N)"""
    alternatives: list[list[tuple[int, float]]]
    """For each place the likeliest ids with their probabilities, best first."""


@dataclass(frozen=True)
class _Pool:
    """The ended hypotheses of each group, (B, G, k) each: empty places have the score NEVER."""

    score: Tensor
    place: Tensor
    """Number of words: the step whose row ended."""
    row: Tensor
    """Which of the K hypotheses of that step."""
    finished: Tensor

    def add(self, other: "_Pool") -> "_Pool":
        """The best k of both; one that has finished goes before one that was cut."""
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        score, place, row, finished = (torch.cat(part, -1) for part in parts)
        order = (score.double() - 1e6 * ~finished).topk(self.score.shape[-1]).indices
        return _Pool(*(part.gather(-1, order) for part in (score, place, row, finished)))

    def closed(self, total: Tensor) -> Tensor:
        """(B, G) bool: the groups that are done, because the pool is full or no running hypothesis is possible."""
        return (self.score.min(-1).values > NEVER) | (total.max(-1).values == NEVER)


@dataclass(frozen=True)
class _Trace:
    """What one step chose and saw, to be read backward at the end; (B, K) each unless said otherwise."""

    words: Tensor
    parents: Tensor
    """Which hypothesis of this step each chosen word continues."""
    log_probs: Tensor
    attention: Tensor
    """(B, K, N) of this step's hypotheses, before the choice."""
    likeliest: Tensor
    """(B, K, A) the largest probabilities of this step's hypotheses, before the choice."""
    likeliest_ids: Tensor


@torch.inference_mode()
def search(
    stepper: Stepper,
    start: Tensor,
    state: SearchState,
    config: SearchConfig,
    *,
    end_id: int,
    banned: Sequence[int] = (),
    begin_with: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """For each photograph its `num_captions` best captions, best first.

    start (B,): the start token for each of the state's B rows. banned: ids that never occur. begin_with: ids that every
    caption begins with; the model reads them like words of its own, and they count towards max_length. Where the rules
    leave no word possible, the caption ends there. A photograph's result does not depend on the others: sampling draws
    the same noise for each. Sampled captions may be equal to each other where the model is sure; beam search returns
    fewer than `num_captions` where there are not as many different ones.
    Raises ValueError where begin_with is longer than max_length.
    """
    if len(begin_with) > config.max_length:
        raise ValueError(
            f"begin_with has {len(begin_with)} words, more than max_length ({config.max_length}); "
            "shorten it or raise max_length."
        )
    return _Search(stepper, config, end_id, banned, begin_with).run(start, state)


class _Search:
    def __init__(
        self, stepper: Stepper, config: SearchConfig, end_id: int, banned: Sequence[int], begin_with: Sequence[int]
    ) -> None:
        self.stepper, self.config, self.end_id = stepper, config, end_id
        self.banned, self.begin_with = list(banned), list(begin_with)
        self.groups = config.num_captions if config.sample else config.beam_groups
        self.size = 1 if config.sample else config.beams // config.beam_groups
        self.noise = torch.Generator().manual_seed(config.seed)

    def run(self, start: Tensor, state: SearchState) -> list[list[Hypothesis]]:
        photographs, width, device = len(start), self.groups * self.size, start.device
        first = self.stepper.step(start, state)
        picked = torch.arange(photographs, device=device).repeat_interleave(width)
        log_probs, attention, state = first.log_probs[picked], first.attention[picked], first.state.select(picked)
        words = torch.empty(len(picked), 0, dtype=torch.long, device=device)
        # All hypotheses of a group begin equal, so only its first may be continued.
        total = torch.full((photographs, self.groups, self.size), NEVER, device=device)
        total[:, :, 0] = 0.0
        nothing = torch.zeros_like(total, dtype=torch.long)
        pool, traces = _Pool(torch.full_like(total, NEVER), nothing, nothing, nothing.bool()), list[_Trace]()
        rows = torch.arange(photographs, device=device)[:, None] * width
        while words.shape[1] < self.config.max_length:
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            ended, chosen, parents, total = self._choose(allowed, total, pool.closed(total), words.shape[1])
            pool, picked = pool.add(ended), (rows + parents).flatten()
            likeliest = log_probs.topk(min(self.config.alternatives, log_probs.shape[1]))
            traces.append(
                _Trace(
                    chosen,
                    parents,
                    log_probs[picked, chosen.flatten()].view(photographs, width),
                    attention.view(photographs, width, -1),
                    likeliest.values.exp().view(photographs, width, -1),
                    likeliest.indices.view(photographs, width, -1),
                )
            )
            if bool(pool.closed(total).all()):
                break
            words = torch.cat([words[picked], chosen.view(-1, 1)], 1)
            step = self.stepper.step(chosen.flatten(), state.select(picked))
            log_probs, attention, state = step.log_probs, step.attention, step.state
        else:
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            pool = pool.add(self._cut(allowed, total, pool.closed(total)))
        return self._read(pool, traces)

    def _allowed(self, log_probs: Tensor, words: Tensor) -> Tensor:
        """log_probs (R, V) with NEVER where the rules forbid the word after words (R, t)."""
        length, config = words.shape[1], self.config
        if length < len(self.begin_with):
            given = torch.full_like(log_probs, NEVER)
            given[:, self.begin_with[length]] = log_probs[:, self.begin_with[length]]
            return given
        allowed = log_probs.clone()
        allowed[:, self.banned] = NEVER
        if config.no_repeat_ngram and length >= config.no_repeat_ngram:
            grams = words.unfold(1, config.no_repeat_ngram, 1)
            begun = words[:, length - config.no_repeat_ngram + 1 :]
            again = (grams[:, :, :-1] == begun[:, None]).all(-1)
            blocked = torch.zeros_like(allowed).scatter_add_(1, grams[:, :, -1], again.to(allowed.dtype))
            allowed[blocked > 0] = NEVER
        if length < config.min_length:
            allowed[:, self.end_id] = NEVER
        stuck = allowed.max(-1).values == NEVER
        allowed[stuck, self.end_id] = log_probs[stuck, self.end_id]
        return allowed

    def _choose(
        self, allowed: Tensor, total: Tensor, closed: Tensor, length: int
    ) -> tuple[_Pool, Tensor, Tensor, Tensor]:
        """What ends after `length` words (B, G, 2k); words and parents (B, K) and totals (B, G, k) of what goes on.

        allowed (B, G, k, V), total (B, G, k), closed (B, G). Of a group's 2k best continuations, an end token among
        the first k ends its hypothesis; the k best others go on (at most k of the 2k can be end tokens).
        """
        photographs, groups, size, vocabulary = allowed.shape
        scores = (total[..., None] + allowed).flatten(2)
        if self.config.sample:
            selection = self._perturbed(allowed).flatten(2)
            picks = selection.topk(2 * size).indices
        else:
            taken = torch.zeros(photographs, vocabulary, device=total.device)
            picks = torch.empty(photographs, groups, 2 * size, dtype=torch.long, device=total.device)
            for group in range(groups):
                penalty = (self.config.diversity * taken).repeat(1, size)
                picks[:, group] = (scores[:, group] - penalty).topk(2 * size).indices
                if group + 1 < groups:
                    first = picks[:, group, :size] % vocabulary
                    taken.scatter_add_(1, first, torch.ones_like(first, dtype=taken.dtype))
        value, word = scores.gather(2, picks), picks % vocabulary
        row = picks // vocabulary + torch.arange(groups, device=total.device)[:, None] * size
        is_end = word == self.end_id
        ends = is_end & ~closed[..., None]
        ends[:, :, size:] = False
        score = (value / (length + 1) ** self.config.length_penalty).masked_fill(~ends, NEVER)
        ended = _Pool(score, torch.full_like(row, length), row, torch.ones_like(is_end))
        go_on = is_end.long().argsort(dim=-1, stable=True)[..., :size]
        total = value.gather(2, go_on).masked_fill(is_end.gather(2, go_on), NEVER)
        return ended, word.gather(2, go_on).flatten(1), row.gather(2, go_on).flatten(1), total

    def _perturbed(self, allowed: Tensor) -> Tensor:
        """Log-probabilities (B, G, 1, V) after temperature, top-k and top-p, plus Gumbel noise: the largest is drawn.

        Gumbel-max: argmax(log p + g) with g = -log(-log u), u uniform, is distributed as p.
        """
        config, vocabulary = self.config, allowed.shape[-1]
        logits = allowed / config.temperature
        if config.top_k:
            least = logits.topk(min(config.top_k, vocabulary)).values[..., -1:]
            logits = logits.masked_fill(logits < least, NEVER)
        if config.top_p < 1:
            ordered, order = logits.softmax(-1).sort(-1, descending=True)
            beyond = (ordered.cumsum(-1) - ordered) >= config.top_p
            logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), NEVER)
        uniform = torch.rand(self.groups, 1, vocabulary, generator=self.noise, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        return logits + gumbel.to(logits)

    def _cut(self, allowed: Tensor, total: Tensor, closed: Tensor) -> _Pool:
        """What is left at max_length (B, G, k): finished where the end token is the likeliest next, else cut."""
        length, penalty = self.config.max_length, self.config.length_penalty
        finished = allowed.argmax(-1) == self.end_id
        ended = (total + allowed[..., self.end_id]) / (length + 1) ** penalty
        score = torch.where(finished, ended, total / length**penalty).masked_fill(closed[..., None], NEVER)
        row = torch.arange(self.groups * self.size, device=total.device).view(1, self.groups, self.size)
        return _Pool(score, torch.full_like(total, length, dtype=torch.long), row.expand_as(total), finished)

    def _read(self, pool: _Pool, traces: Sequence[_Trace]) -> list[list[Hypothesis]]:
        """Follow each ended hypothesis back through the traces."""
        columns = (column.flatten(1).tolist() for column in (pool.score, pool.place, pool.row, pool.finished))
        results = []
        for photograph, ended in enumerate(zip(*columns, strict=True)):
            best = sorted(zip(*ended, strict=True), key=lambda item: (item[3], item[0]), reverse=True)
            captions: list[Hypothesis] = []
            for score, length, row, finished in best:
                if score == NEVER or len(captions) == self.config.num_captions:
                    break
                caption = _follow(traces, photograph, length, row, score, finished)
                if self.config.sample or all(caption.ids != other.ids for other in captions):
                    captions.append(caption)
            results.append(captions)
        return results


def _follow(
    traces: Sequence[_Trace], photograph: int, length: int, row: int, score: float, finished: bool
) -> Hypothesis:
    """The hypothesis of `length` words whose end is row `row` after them."""
    ids, log_probs, rows = [], [], []
    for trace in reversed(traces[:length]):
        ids.append(int(trace.words[photograph, row]))
        log_probs.append(float(trace.log_probs[photograph, row]))
        row = int(trace.parents[photograph, row])
        rows.append(row)
    places = list(zip(traces, reversed(rows), strict=False))
    seen = [trace.attention[photograph, row] for trace, row in places]
    alternatives = [
        list(zip(trace.likeliest_ids[photograph, row].tolist(), trace.likeliest[photograph, row].tolist(), strict=True))
        for trace, row in places
    ]
    attention = torch.stack(seen) if seen else traces[0].attention[photograph, :0]
    return Hypothesis(ids[::-1], log_probs[::-1], score, finished, attention, alternatives)
