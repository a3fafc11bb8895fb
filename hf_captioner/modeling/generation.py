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

    def select(self, photographs: Tensor) -> "_Pool":
        return _Pool(*(part[photographs] for part in vars(self).values()))

    def spread(self, running: Tensor, photographs: int) -> "_Pool":
        """The pool of all photographs, empty but for those that are still running (A,)."""
        score, *rest = (_spread(part, running, photographs) for part in vars(self).values())
        done = torch.ones(photographs, dtype=torch.bool, device=score.device).index_fill(0, running, False)
        return _Pool(score.masked_fill(done[:, None, None], NEVER), *rest)

    def closed(self, total: Tensor) -> Tensor:
        """(B, G) bool: the groups that are done, because the pool is full or no running hypothesis is possible."""
        return (self.score.min(-1).values > NEVER) | (total.max(-1).values == NEVER)


@dataclass(frozen=True)
class _Trace:
    """What one step chose and saw, to be read backward at the end; (B, K) each unless said otherwise. What is said of
    photographs that were done before the step means nothing."""

    words: Tensor
    parents: Tensor
    """Which hypothesis of this step each chosen word continues."""
    log_probs: Tensor
    attention: Tensor
    """(B, K, N) of this step's hypotheses, before the choice."""
    likeliest: Tensor
    """(B, K, A) the largest probabilities of this step's hypotheses, before the choice."""
    likeliest_ids: Tensor

    def spread(self, running: Tensor, photographs: int) -> "_Trace":
        """The trace of all photographs, of one of those that are still running (A,)."""
        return _Trace(*(_spread(part, running, photographs) for part in vars(self).values()))


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
        running = torch.arange(photographs, device=device)
        while words.shape[1] < self.config.max_length:
            closed = pool.select(running).closed(total)
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            ended, chosen, parents, total = self._choose(allowed, total, closed, words.shape[1])
            pool = pool.add(ended.spread(running, photographs))
            picked = (torch.arange(len(running), device=device)[:, None] * width + parents).flatten()
            likeliest = log_probs.topk(min(self.config.alternatives, log_probs.shape[1]))
            trace = _Trace(
                chosen,
                parents,
                log_probs[picked, chosen.flatten()].view(chosen.shape),
                attention.view(*chosen.shape, -1),
                likeliest.values.view(*chosen.shape, -1),
                likeliest.indices.view(*chosen.shape, -1),
            )
            traces.append(trace.spread(running, photographs))
            goes_on = ~pool.select(running).closed(total).all(1)
            if not bool(goes_on.all()):
                running, total, chosen = running[goes_on], total[goes_on], chosen[goes_on]
                picked = picked.view(len(goes_on), width)[goes_on].flatten()
                if not len(running):
                    break
            words = torch.cat([words[picked], chosen.view(-1, 1)], 1)
            step = self.stepper.step(chosen.flatten(), state.select(picked))
            log_probs, attention, state = step.log_probs, step.attention, step.state
        else:
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            cut = self._cut(allowed, total, pool.select(running).closed(total))
            pool = pool.add(cut.spread(running, photographs))
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
            most = torch.where(again, NEVER, -NEVER).to(allowed.dtype)
            allowed.scatter_reduce_(1, grams[:, :, -1], most, "amin")
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
        """Follow the best ended hypotheses of each photograph back through the traces."""
        score, place, row, finished = (part.flatten(1) for part in vars(pool).values())
        words, rows = _follow(place, row, traces)
        kept = self._best(score.tolist(), place.tolist(), finished.tolist(), words.permute(1, 2, 0).tolist())
        pairs = [(photograph, end) for photograph, ends in enumerate(kept) for end in ends]
        photograph, end = torch.tensor(pairs, device=place.device).view(-1, 2).T
        lengths = place[photograph, end]
        # The places of all the captions, one caption's after the other's.
        caption, t = (torch.arange(len(traces), device=place.device) < lengths[:, None]).nonzero().T
        before = t, photograph[caption], rows[t, photograph[caption], end[caption]]
        after = t, photograph[caption], rows[t + 1, photograph[caption], end[caption]]
        ids = torch.stack([trace.words for trace in traces])[after].tolist()
        log_probs = torch.stack([trace.log_probs for trace in traces])[after].tolist()
        likeliest = torch.stack([trace.likeliest for trace in traces])[before].exp().tolist()
        likeliest_ids = torch.stack([trace.likeliest_ids for trace in traces])[before].tolist()
        alternatives = [list(zip(*both, strict=True)) for both in zip(likeliest_ids, likeliest, strict=True)]
        attention = torch.stack([trace.attention for trace in traces])[before]
        ends = lengths.cumsum(0).tolist()
        found = iter(
            Hypothesis(ids[i:j], log_probs[i:j], float(total), bool(whole), attention[i:j], alternatives[i:j])
            for i, j, total, whole in zip(
                [0, *ends], ends, score[photograph, end].tolist(), finished[photograph, end].tolist(), strict=False
            )
        )
        return [[next(found) for _ in ends] for ends in kept]

    def _best(
        self,
        scores: list[list[float]],
        places: list[list[int]],
        finished: list[list[bool]],
        words: list[list[list[int]]],
    ) -> list[list[int]]:
        """Which of each photograph's ended hypotheses are given, best first; two that are equal only if drawn."""
        kept = []
        for score, place, whole, ids in zip(scores, places, finished, words, strict=True):
            ends: dict[tuple[int, ...], int] = {}
            for i in sorted(range(len(score)), key=lambda i: (whole[i], score[i]), reverse=True):
                caption = (*ids[i][: place[i]], i) if self.config.sample else (*ids[i][: place[i]],)
                if score[i] > NEVER and len(ends) < self.config.num_captions:
                    ends.setdefault(caption, i)
            kept.append(list(ends.values()))
        return kept


def _spread(part: Tensor, running: Tensor, photographs: int) -> Tensor:
    """(A, ...) of the photographs running (A,) -> (B, ...), zero for the others."""
    if len(running) == photographs:
        return part
    return part.new_zeros((photographs, *part.shape[1:])).index_copy(0, running, part)


def _follow(place: Tensor, row: Tensor, traces: Sequence[_Trace]) -> tuple[Tensor, Tensor]:
    """Back from the ended hypotheses (B, P), which have `place` words and end in `row`: their words (T, B, P), and
    (T + 1, B, P) the rows that they were before each step and after the last; beyond a hypothesis' end these mean
    nothing."""
    rows, words = [row], []
    for t, trace in reversed(list(enumerate(traces))):
        words.append(trace.words.gather(1, row))
        row = torch.where(place > t, trace.parents.gather(1, row), row)
        rows.append(row)
    return torch.stack(words[::-1]), torch.stack(rows[::-1])
