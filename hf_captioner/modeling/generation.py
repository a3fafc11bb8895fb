"""Greedy, beam and diverse beam search and sampling, over the hypotheses of all images at once.

One loop does them all. Each image has G groups of k hypotheses (K = G * k):
    greedy          G = 1, k = 1
    beam            G = 1, k = beams
    diverse beam    G = num_beam_groups, k = beams / num_beam_groups; a group avoids the words earlier groups chose
    sampling        G = num_return_sequences, k = 1; the choice is by perturbed log-probabilities (Gumbel-max)
A group is done when k of its hypotheses are finished. Nothing here knows of images: `DecoderStep` is anything that has
`step`. Nor does the loop wait for a device, but when it looks which images are done: these ride along until then.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from hf_captioner.config import GenerationConfig
from hf_captioner.errors import GenerationStopped
from hf_captioner.modeling.hypotheses import NEG_INF, FinishedHypotheses, StepRecord, backtrack

StoppingCriteria = Callable[[], bool]
"""Asked before every word of the captions being written; where it answers True, they are given up."""

WORDS_BETWEEN_LOOKS = 4
"""On a device that computes while the host goes on: how many words are begun before the host waits to see which images
are done. More words wait less and write more for nothing."""


class GenerationState(Protocol):
    def select(self, rows: Tensor, kept: Tensor | None = None, /) -> Self:
        """The state whose row i is this one's row rows[i].

        Every image has as many rows as the others, one image's after the other's. kept (A,): the images of this state
        that have rows in the new one, in order; None for all of them.
        """


class StepResult(Protocol):
    @property
    def log_probs(self) -> Tensor: ...
    @property
    def attention(self) -> Tensor: ...
    @property
    def state(self) -> Any: ...


class DecoderStep(Protocol):
    def step(self, words: Tensor, state: Any, /) -> StepResult:
        """Read words (R,); return log_probs (R, V) of the next word, attention (R, N) and the new state."""


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
    """(T, N), on the processor"""
    alternatives: list[list[tuple[int, float]]]
    """The most probable ids at each position, but for the banned ones, with their probabilities, best first."""


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
    stopping_criteria: StoppingCriteria | None = None,
) -> list[list[Hypothesis]]:
    """For each image its `num_return_sequences` best captions, best first.

    start (B,): the start token for each of the state's B rows. banned: ids that never occur. prefix: ids that every
    caption begins with; the model reads them like its own words, and they count towards max_length. A caption ends
    where the settings leave no word possible. An image's result does not depend on the others: sampling draws the same
    noise for each. Sampled captions may be equal; beam search returns fewer than `num_return_sequences` where it does
    not find as many different ones. Raises ValueError for a prefix longer than max_length, and GenerationStopped before
    the first step at which the stopping criteria say so.
    """
    if len(prefix) > config.max_length:
        raise ValueError(
            f"prefix has {len(prefix)} words, more than max_length ({config.max_length}); "
            "shorten it or raise max_length."
        )
    never = torch.tensor(sorted(set(banned)), dtype=torch.long, device=start.device)
    return _Generation(stepper, config, end_id, never, prefix, stopping_criteria).run(start, state)


def words_between_looks(device: torch.device) -> int:
    return 1 if device.type == "cpu" else WORDS_BETWEEN_LOOKS


class _Generation:
    def __init__(
        self,
        stepper: DecoderStep,
        config: GenerationConfig,
        end_id: int,
        banned: Tensor,
        prefix: Sequence[int],
        stopping_criteria: StoppingCriteria | None,
    ) -> None:
        self.stepper, self.config, self.end_id = stepper, config, end_id
        self.banned, self.prefix, self.stopping_criteria = banned, list(prefix), stopping_criteria
        self.between_looks = words_between_looks(banned.device)
        self.groups = config.num_return_sequences if config.do_sample else config.num_beam_groups
        self.size = 1 if config.do_sample else config.num_beams // config.num_beam_groups
        self.uniform = torch.Generator().manual_seed(config.seed)
        self.noise = torch.empty(0)

    def run(self, start: Tensor, state: GenerationState) -> list[list[Hypothesis]]:
        images, width, device = len(start), self.groups * self.size, start.device
        first = self._step(start, state)
        picked = torch.arange(images, device=device).repeat_interleave(width)
        log_probs, attention, state = first.log_probs[picked], first.attention[picked], first.state.select(picked)
        words = torch.empty(len(picked), 0, dtype=torch.long, device=device)
        # All hypotheses of a group begin equal, so only its first may be continued.
        total = torch.full((images, self.groups, self.size), NEG_INF, device=device)
        total[:, :, 0] = 0.0
        nothing = torch.zeros_like(total, dtype=torch.long)
        pool, records = (
            FinishedHypotheses(torch.full_like(total, NEG_INF), nothing, nothing, nothing.bool()),
            list[StepRecord](),
        )
        running = torch.arange(images, device=device)
        closed = pool.closed(running, total)
        while words.shape[1] < self.config.max_length:
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            ended, chosen, parents, total = self._choose(allowed, total, closed, words.shape[1])
            pool = pool.add(ended.scatter(running, images))
            picked = (torch.arange(len(running), device=device)[:, None] * width + parents).flatten()
            likeliest, likeliest_ids = self._likeliest(log_probs)
            record = StepRecord(
                chosen,
                parents,
                log_probs[picked, chosen.flatten()].view(chosen.shape),
                attention.view(*chosen.shape, -1),
                likeliest.view(*chosen.shape, -1),
                likeliest_ids.view(*chosen.shape, -1),
            )
            records.append(record.scatter(running, images))
            closed, kept = pool.closed(running, total), None
            if len(records) % self.between_looks == 0:
                going = (~closed.all(1)).nonzero().flatten()
                if len(going) < len(running):
                    kept = going
                    running, total, closed, chosen = running[kept], total[kept], closed[kept], chosen[kept]
                    picked = picked.view(-1, width)[kept].flatten()
                    if not len(kept):
                        break
            words = torch.cat([words[picked], chosen.view(-1, 1)], 1)
            step = self._step(chosen.flatten(), state.select(picked, kept))
            log_probs, attention, state = step.log_probs, step.attention, step.state
        else:
            allowed = self._allowed(log_probs, words).view(*total.shape, -1)
            pool = pool.add(self._cut(allowed, total, closed).scatter(running, images))
        return self._collect(pool, records)

    def _step(self, words: Tensor, state: GenerationState) -> StepResult:
        if self.stopping_criteria is not None and self.stopping_criteria():
            raise GenerationStopped("The captions were stopped before they were finished; ask again for new ones.")
        return self.stepper.step(words, state)

    def _likeliest(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Of log_probs (R, V) the A largest of words that are not banned, and their ids."""
        possible = log_probs.index_fill(1, self.banned, NEG_INF)
        values, ids = possible.topk(min(self.config.num_alternatives, log_probs.shape[1] - len(self.banned)))
        return values, ids

    def _allowed(self, log_probs: Tensor, words: Tensor) -> Tensor:
        """log_probs (R, V) with NEG_INF for the words that the settings forbid after words (R, t)."""
        length, config = words.shape[1], self.config
        if length < len(self.prefix):
            given = torch.full_like(log_probs, NEG_INF)
            given[:, self.prefix[length]] = log_probs[:, self.prefix[length]]
            return given
        allowed = log_probs.index_fill(1, self.banned, NEG_INF)
        if config.no_repeat_ngram_size and length >= config.no_repeat_ngram_size:
            grams = words.unfold(1, config.no_repeat_ngram_size, 1)
            begun = words[:, length - config.no_repeat_ngram_size + 1 :]
            again = (grams[:, :, :-1] == begun[:, None]).all(-1)
            most = torch.full_like(again, -NEG_INF, dtype=allowed.dtype).masked_fill_(again, NEG_INF)
            allowed.scatter_reduce_(1, grams[:, :, -1], most, "amin")
        if length < config.min_length:
            allowed[:, self.end_id] = NEG_INF
        stuck = allowed.max(-1).values == NEG_INF
        end = allowed[:, self.end_id]
        end.copy_(torch.where(stuck, log_probs[:, self.end_id], end))
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
            selection = self._perturbed(allowed, length).flatten(2)
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

    def _perturbed(self, allowed: Tensor, length: int) -> Tensor:
        """Log-probabilities (B, G, 1, V) after temperature, top-k and top-p, plus Gumbel noise: the argmax samples.

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
        if length % self.between_looks == 0:  # drawn by the host, the same for every device
            self.noise = torch.stack([self._gumbel(vocabulary) for _ in range(self.between_looks)]).to(logits)
        return logits + self.noise[length % self.between_looks]

    def _gumbel(self, vocabulary: int) -> Tensor:
        uniform = torch.rand(self.groups, 1, vocabulary, generator=self.uniform, dtype=torch.float64)
        return -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))

    def _cut(self, allowed: Tensor, total: Tensor, closed: Tensor) -> FinishedHypotheses:
        """The hypotheses left at max_length (B, G, k): finished where the end token is the most probable, else cut."""
        length, penalty = self.config.max_length, self.config.length_penalty
        finished = allowed.argmax(-1) == self.end_id
        ended = (total + allowed[..., self.end_id]) / (length + 1) ** penalty
        score = torch.where(finished, ended, total / length**penalty).masked_fill(closed[..., None], NEG_INF)
        row = torch.arange(self.groups * self.size, device=total.device).view(1, self.groups, self.size)
        return FinishedHypotheses(
            score, torch.full_like(total, length, dtype=torch.long), row.expand_as(total), finished
        )

    def _collect(self, pool: FinishedHypotheses, records: Sequence[StepRecord]) -> list[list[Hypothesis]]:
        """Backtrack from the best finished hypotheses of each image through the records."""
        score, place, row, finished = (part.flatten(1) for part in vars(pool).values())
        words, rows = backtrack(place, row, records)
        kept = self._best(score.tolist(), place.tolist(), finished.tolist(), words.permute(1, 2, 0).tolist())
        pairs = [(image, end) for image, ends in enumerate(kept) for end in ends]
        image, end = torch.tensor(pairs, device=place.device).view(-1, 2).T
        lengths = place[image, end]
        # The places of all the captions, one caption's after the other's.
        caption, t = (torch.arange(len(records), device=place.device) < lengths[:, None]).nonzero().T
        before = t, image[caption], rows[t, image[caption], end[caption]]
        after = t, image[caption], rows[t + 1, image[caption], end[caption]]
        ids = torch.stack([record.words for record in records])[after].tolist()
        log_probs = torch.stack([record.log_probs for record in records])[after].tolist()
        likeliest = torch.stack([record.likeliest for record in records])[before].exp().tolist()
        likeliest_ids = torch.stack([record.likeliest_ids for record in records])[before].tolist()
        alternatives = [list(zip(*both, strict=True)) for both in zip(likeliest_ids, likeliest, strict=True)]
        attention = torch.stack([record.attention for record in records])[before].cpu()
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
        """Indices of the hypotheses returned for each image, best first; equal ones only when sampling."""
        kept = []
        for score, place, whole, ids in zip(scores, places, finished, words, strict=True):
            ends: dict[tuple[int, ...], int] = {}
            for i in sorted(range(len(score)), key=lambda i: (whole[i], score[i]), reverse=True):
                caption = (*ids[i][: place[i]], i) if self.config.do_sample else (*ids[i][: place[i]],)
                if score[i] > NEG_INF and len(ends) < self.config.num_return_sequences:
                    ends.setdefault(caption, i)
            kept.append(list(ends.values()))
        return kept
