"""Greedy, beam, diverse beam search and sampling, for all images and hypotheses at once.

One loop serves them all. Each image has G groups of k hypotheses (K = G * k):
    greedy          G = 1, k = 1
    beam            G = 1, k = beams
    diverse beam    G = num_beam_groups, k = beams / num_beam_groups; a group avoids the words earlier groups chose
    sampling        G = num_return_sequences, k = 1; the choice is by perturbed log-probabilities (Gumbel-max)
A group is done when k of its hypotheses have ended. Nothing here knows of images: a stepper is anything with `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from hf_captioner.config import GenerationConfig

NEG_INF = float("-inf")


class GenerationState(Protocol):
    def select(self, rows: Tensor) -> Self: ...


class StepResult(Protocol):
    @property
    def log_probs(self) -> Tensor: ...
    @property
    def attention(self) -> Tensor: ...
    @property
    def state(self) -> Any: ...


class DecoderStep(Protocol):
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
class FinishedHypotheses:
    """The ended hypotheses of each group, (B, G, k) each: empty places have the score NEG_INF."""

    score: Tensor
    place: Tensor
    """Number of words: the step whose row ended."""
    row: Tensor
    """Which of the K hypotheses of that step."""
    finished: Tensor

    def add(self, other: "FinishedHypotheses") -> "FinishedHypotheses":
        """The best k of both; one that has finished goes before one that was cut."""
        parts = zip(vars(self).values(), vars(other).values(), strict=True)
        score, place, row, finished = (torch.cat(part, -1) for part in parts)
        order = (score.double() - 1e6 * ~finished).topk(self.score.shape[-1]).indices
        return FinishedHypotheses(*(part.gather(-1, order) for part in (score, place, row, finished)))

    def select(self, images: Tensor) -> "FinishedHypotheses":
        return FinishedHypotheses(*(part[images] for part in vars(self).values()))

    def spread(self, running: Tensor, images: int) -> "FinishedHypotheses":
        """The pool of all images, empty but for those that are still running (A,)."""
        score, *rest = (_spread(part, running, images) for part in vars(self).values())
        done = torch.ones(images, dtype=torch.bool, device=score.device).index_fill(0, running, False)
        return FinishedHypotheses(score.masked_fill(done[:, None, None], NEG_INF), *rest)

    def closed(self, total: Tensor) -> Tensor:
        """(B, G) bool: the groups that are done, because the pool is full or no running hypothesis is possible."""
        return (self.score.min(-1).values > NEG_INF) | (total.max(-1).values == NEG_INF)


@dataclass(frozen=True)
class StepRecord:
    """What one step chose and saw, to be read backward at the end; (B, K) each unless said otherwise. What is said of
    images that were done before the step means nothing."""

    words: Tensor
    parents: Tensor
    """Which hypothesis of this step each chosen word continues."""
    log_probs: Tensor
    attention: Tensor
    """(B, K, N) of this step's hypotheses, before the choice."""
    likeliest: Tensor
    """(B, K, A) the largest probabilities of this step's hypotheses, before the choice."""
    likeliest_ids: Tensor

    def spread(self, running: Tensor, images: int) -> "StepRecord":
        """The trace of all images, of one of those that are still running (A,)."""
        return StepRecord(*(_spread(part, running, images) for part in vars(self).values()))


@torch.inference_mode()
def generate(
    stepper: DecoderStep,
    start: Tensor,
    state: GenerationState,
    config: GenerationConfig,
    *,
    end_id: int,
    banned: Sequence[int] = (),
    prefix: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """For each image its `num_return_sequences` best captions, best first.

    start (B,): the start token for each of the state's B rows. banned: ids that never occur. prefix: ids that every
    caption begins with; the model reads them like words of its own, and they count towards max_length. Where the rules
    leave no word possible, the caption ends there. An image's result does not depend on the others: sampling draws
    the same noise for each. Sampled captions may be equal to each other where the model is sure; beam search returns
    fewer than `num_return_sequences` where there are not as many different ones.
    Raises ValueError where prefix is longer than max_length.
    """
    if len(prefix) > config.max_length:
        raise ValueError(
            f"prefix has {len(prefix)} words, more than max_length ({config.max_length}); "
            "shorten it or raise max_length."
        )
    return _Generation(stepper, config, end_id, banned, prefix).run(start, state)


class _Generation:
    def __init__(
        self, stepper: DecoderStep, config: GenerationConfig, end_id: int, banned: Sequence[int], prefix: Sequence[int]
    ) -> None:
        self.stepper, self.config, self.end_id = stepper, config, end_id
        self.banned, self.prefix = list(banned), list(prefix)
        self.groups = config.num_return_sequences if config.do_sample else config.num_beam_groups
        self.size = 1 if config.do_sample else config.num_beams // config.num_beam_groups
        self.noise = torch.Generator().manual_seed(config.seed)

    def run(self, start: Tensor, state: GenerationState) -> list[list[Hypothesis]]:
        images, width, device = len(start), self.groups * self.size, start.device
        first = self.stepper.step(start, state)
        picked = torch.arange(images, device=device).repeat_interleave(width)
        log_probs, attention, state = first.log_probs[picked], first.attention[picked], first.state.select(picked)
        words = torch.empty(len(picked), 0, dtype=torch.long, device=device)
        # All hypotheses of a group begin equal, so only its first may be continued.
        total = torch.full((images, self.groups, self.size), NEG_INF, device=device)
        total[:, :, 0] = 0.0
        nothing = torch.zeros_like(total, dtype=torch.long)
        pool, traces = (
            FinishedHypotheses(torch.full_like(total, NEG_INF), nothing, nothing, nothing.bool()),
            list[StepRecord](),
        )
        running = torch.arange(images, device=device)
        while words.shape[1] < self.config.max_length:
            closed = pool.select(running).closed(total)
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            ended, chosen, parents, total = self._choose(allowed, total, closed, words.shape[1])
            pool = pool.add(ended.spread(running, images))
            picked = (torch.arange(len(running), device=device)[:, None] * width + parents).flatten()
            likeliest = log_probs.topk(min(self.config.num_alternatives, log_probs.shape[1]))
            trace = StepRecord(
                chosen,
                parents,
                log_probs[picked, chosen.flatten()].view(chosen.shape),
                attention.view(*chosen.shape, -1),
                likeliest.values.view(*chosen.shape, -1),
                likeliest.indices.view(*chosen.shape, -1),
            )
            traces.append(trace.spread(running, images))
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
            pool = pool.add(cut.spread(running, images))
        return self._read(pool, traces)

    def _allowed(self, log_probs: Tensor, words: Tensor) -> Tensor:
        """log_probs (R, V) with NEG_INF where the rules forbid the word after words (R, t)."""
        length, config = words.shape[1], self.config
        if length < len(self.prefix):
            given = torch.full_like(log_probs, NEG_INF)
            given[:, self.prefix[length]] = log_probs[:, self.prefix[length]]
            return given
        allowed = log_probs.clone()
        allowed[:, self.banned] = NEG_INF
        if config.no_repeat_ngram_size and length >= config.no_repeat_ngram_size:
            grams = words.unfold(1, config.no_repeat_ngram_size, 1)
            begun = words[:, length - config.no_repeat_ngram_size + 1 :]
            again = (grams[:, :, :-1] == begun[:, None]).all(-1)
            most = torch.where(again, NEG_INF, -NEG_INF).to(allowed.dtype)
            allowed.scatter_reduce_(1, grams[:, :, -1], most, "amin")
        if length < config.min_length:
            allowed[:, self.end_id] = NEG_INF
        stuck = allowed.max(-1).values == NEG_INF
        allowed[stuck, self.end_id] = log_probs[stuck, self.end_id]
        return allowed

    def _choose(
        self, allowed: Tensor, total: Tensor, closed: Tensor, length: int
    ) -> tuple[FinishedHypotheses, Tensor, Tensor, Tensor]:
        """What ends after `length` words (B, G, 2k); words and parents (B, K) and totals (B, G, k) of what goes on.

        allowed (B, G, k, V), total (B, G, k), closed (B, G). Of a group's 2k best continuations, an end token among
        the first k ends its hypothesis; the k best others go on (at most k of the 2k can be end tokens).
        """
        images, groups, size, vocabulary = allowed.shape
        scores = (total[..., None] + allowed).flatten(2)
        if self.config.do_sample:
            selection = self._perturbed(allowed).flatten(2)
            picks = selection.topk(2 * size).indices
        else:
            taken = torch.zeros(images, vocabulary, device=total.device)
            picks = torch.empty(images, groups, 2 * size, dtype=torch.long, device=total.device)
            for group in range(groups):
                penalty = (self.config.diversity_penalty * taken).repeat(1, size)
                picks[:, group] = (scores[:, group] - penalty).topk(2 * size).indices
                if group + 1 < groups:
                    first = picks[:, group, :size] % vocabulary
                    taken.scatter_add_(1, first, torch.ones_like(first, dtype=taken.dtype))
        value, word = scores.gather(2, picks), picks % vocabulary
        row = picks // vocabulary + torch.arange(groups, device=total.device)[:, None] * size
        is_end = word == self.end_id
        ends = is_end & ~closed[..., None]
        ends[:, :, size:] = False
        score = (value / (length + 1) ** self.config.length_penalty).masked_fill(~ends, NEG_INF)
        ended = FinishedHypotheses(score, torch.full_like(row, length), row, torch.ones_like(is_end))
        go_on = is_end.long().argsort(dim=-1, stable=True)[..., :size]
        total = value.gather(2, go_on).masked_fill(is_end.gather(2, go_on), NEG_INF)
        return ended, word.gather(2, go_on).flatten(1), row.gather(2, go_on).flatten(1), total

    def _perturbed(self, allowed: Tensor) -> Tensor:
        """Log-probabilities (B, G, 1, V) after temperature, top-k and top-p, plus Gumbel noise: the largest is drawn.

        Gumbel-max: argmax(log p + g) with g = -log(-log u), u uniform, is distributed as p.
        """
        config, vocabulary = self.config, allowed.shape[-1]
        logits = allowed / config.temperature
        if config.top_k:
            least = logits.topk(min(config.top_k, vocabulary)).values[..., -1:]
            logits = logits.masked_fill(logits < least, NEG_INF)
        if config.top_p < 1:
            ordered, order = logits.softmax(-1).sort(-1, descending=True)
            beyond = (ordered.cumsum(-1) - ordered) >= config.top_p
            logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), NEG_INF)
        uniform = torch.rand(self.groups, 1, vocabulary, generator=self.noise, dtype=torch.float64)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        return logits + gumbel.to(logits)

    def _cut(self, allowed: Tensor, total: Tensor, closed: Tensor) -> FinishedHypotheses:
        """What is left at max_length (B, G, k): finished where the end token is the likeliest next, else cut."""
        length, penalty = self.config.max_length, self.config.length_penalty
        finished = allowed.argmax(-1) == self.end_id
        ended = (total + allowed[..., self.end_id]) / (length + 1) ** penalty
        score = torch.where(finished, ended, total / length**penalty).masked_fill(closed[..., None], NEG_INF)
        row = torch.arange(self.groups * self.size, device=total.device).view(1, self.groups, self.size)
        return FinishedHypotheses(
            score, torch.full_like(total, length, dtype=torch.long), row.expand_as(total), finished
        )

    def _read(self, pool: FinishedHypotheses, traces: Sequence[StepRecord]) -> list[list[Hypothesis]]:
        """Follow the best ended hypotheses of each image back through the traces."""
        score, place, row, finished = (part.flatten(1) for part in vars(pool).values())
        words, rows = _follow(place, row, traces)
        kept = self._best(score.tolist(), place.tolist(), finished.tolist(), words.permute(1, 2, 0).tolist())
        pairs = [(image, end) for image, ends in enumerate(kept) for end in ends]
        image, end = torch.tensor(pairs, device=place.device).view(-1, 2).T
        lengths = place[image, end]
        # The places of all the captions, one caption's after the other's.
        caption, t = (torch.arange(len(traces), device=place.device) < lengths[:, None]).nonzero().T
        before = t, image[caption], rows[t, image[caption], end[caption]]
        after = t, image[caption], rows[t + 1, image[caption], end[caption]]
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
                [0, *ends], ends, score[image, end].tolist(), finished[image, end].tolist(), strict=False
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
        """Which of each image's ended hypotheses are given, best first; two that are equal only if drawn."""
        kept = []
        for score, place, whole, ids in zip(scores, places, finished, words, strict=True):
            ends: dict[tuple[int, ...], int] = {}
            for i in sorted(range(len(score)), key=lambda i: (whole[i], score[i]), reverse=True):
                caption = (*ids[i][: place[i]], i) if self.config.do_sample else (*ids[i][: place[i]],)
                if score[i] > NEG_INF and len(ends) < self.config.num_return_sequences:
                    ends.setdefault(caption, i)
            kept.append(list(ends.values()))
        return kept


def _spread(part: Tensor, running: Tensor, images: int) -> Tensor:
    """(A, ...) of the images running (A,) -> (B, ...), zero for the others."""
    if len(running) == images:
        return part
    return part.new_zeros((images, *part.shape[1:])).index_copy(0, running, part)


def _follow(place: Tensor, row: Tensor, traces: Sequence[StepRecord]) -> tuple[Tensor, Tensor]:
    """Back from the ended hypotheses (B, P), which have `place` words and end in `row`: their words (T, B, P), and
    (T + 1, B, P) the rows that they were before each step and after the last; beyond a hypothesis' end these mean
    nothing."""
    rows, words = [row], []
    for t, trace in reversed(list(enumerate(traces))):
        words.append(trace.words.gather(1, row))
        row = torch.where(place > t, trace.parents.gather(1, row), row)
        rows.append(row)
    return torch.stack(words[::-1]), torch.stack(rows[::-1])
