"""The search finds what it promises to find, whatever else is in the batch."""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_captioner import ConfigError, GenerationConfig
from hf_captioner.errors import GenerationStopped
from hf_captioner.modeling.generation import Hypothesis, generate

START, END = 0, 1


@dataclass(frozen=True)
class ToyState:
    """words (R, t) read so far, and which image each row belongs to."""

    words: Tensor
    image: Tensor

    def select(self, rows: Tensor, kept: Tensor | None = None) -> "ToyState":
        return ToyState(self.words[rows], self.image[rows])


@dataclass(frozen=True)
class ToyStep:
    log_probs: Tensor
    attention: Tensor
    state: ToyState


class Toy:
    """A model whose next word depends on the image and on every word so far, at random but repeatably.

    Its attention spells the words read (R, 12), so that attention of another hypothesis would show.
    """

    def __init__(self, vocabulary: int, seed: int = 0, sharpness: float = 2.0) -> None:
        self.vocabulary, self.seed, self.sharpness = vocabulary, seed, sharpness

    def start(self, *images: int) -> tuple[Tensor, ToyState]:
        rows = torch.tensor(images)
        return torch.full_like(rows, START), ToyState(torch.empty(len(rows), 0, dtype=torch.long), rows)

    def step(self, words: Tensor, state: ToyState) -> ToyStep:
        read = torch.cat([state.words, words[:, None]], 1)
        log_probs = torch.stack([self.next(int(p), row) for p, row in zip(state.image, read.tolist(), strict=True)])
        spelled = torch.zeros(len(read), 12)
        spelled[:, : read.shape[1]] = read[:, :12].float()
        return ToyStep(log_probs, spelled, ToyState(read, state.image))

    def next(self, image: int, read: list[int]) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, image, *read)) % 2**31)
        logits = self.sharpness * torch.randn(self.vocabulary, generator=generator)
        logits[START] = -math.inf
        return logits.log_softmax(-1)

    def likelihood(self, image: int, ids: tuple[int, ...]) -> float:
        read, total = [START], 0.0
        for word in ids:
            total += float(self.next(image, read)[word])
            read.append(word)
        return total


def find(toy: Toy, *images: int, prefix: tuple[int, ...] = (), **fields: Any) -> list[list[Hypothesis]]:
    config = GenerationConfig(**{"max_length": 6, **fields})
    start, state = toy.start(*images)
    return generate(toy, start, state, config, end_id=END, banned=[START, *fields.get("banned", ())], prefix=prefix)


def greedy(toy: Toy, image: int, max_length: int = 6) -> list[int]:
    read: list[int] = [START]
    while len(read) <= max_length:
        likely = toy.next(image, read)
        word = int(likely.argmax() if len(read) > 1 else likely[2:].argmax() + 2)  # a caption has a word
        if word == END:
            break
        read.append(word)
    return read[1:]


MODES: list[dict[str, Any]] = [
    {"num_beams": 1},
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "diversity_penalty": 1.0},
    {"num_beams": 3, "no_repeat_ngram_size": 2, "min_length": 3, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 3, "temperature": 0.8, "top_k": 4, "top_p": 0.9, "seed": 5},
]


@given(seed=st.integers(0, 10_000), vocabulary=st.integers(3, 9))
@settings(max_examples=40, deadline=None)
def test_one_beam_is_greedy(seed: int, vocabulary: int) -> None:
    toy = Toy(vocabulary, seed)
    [[best]] = find(toy, 7, num_beams=1)
    assert best.ids == greedy(toy, 7)
    assert sum(best.log_probs) == pytest.approx(toy.likelihood(7, tuple(best.ids)), abs=1e-5)


def exhaustive(toy: Toy, length_penalty: float, longest: int = 3) -> list[tuple[float, tuple[int, ...]]]:
    """Every finished caption of up to `longest` words with its score, best first."""
    words = range(2, toy.vocabulary)
    sentences = [s for length in range(1, longest + 1) for s in itertools.product(words, repeat=length)]
    scored = [(toy.likelihood(0, (*s, END)) / (len(s) + 1) ** length_penalty, s) for s in sentences]
    return sorted(scored, reverse=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0, 2.0])
def test_a_full_width_beam_finds_the_best_sentences(seed: int, length_penalty: float) -> None:
    toy = Toy(4, seed)
    best = exhaustive(toy, length_penalty)
    # At max_length a sentence counts as finished only where the end is the likeliest next word.
    best = [(s, ids) for s, ids in best if len(ids) < 3 or int(toy.next(0, [START, *ids]).argmax()) == END]
    [found] = find(toy, 0, num_beams=64, num_return_sequences=5, max_length=3, length_penalty=length_penalty)
    for hypothesis, (score, ids) in zip(found, best, strict=False):
        assert tuple(hypothesis.ids) == ids
        assert hypothesis.score == pytest.approx(score, abs=1e-4)
        assert hypothesis.finished


def test_a_wider_beam_is_hardly_ever_worse_than_greedy() -> None:
    """It may be: a prefix that greedy follows can fall out of the beam. Rarely, and on average it gains."""
    gains = []
    for seed in range(60):
        toy = Toy(8, seed)
        narrow, wide = find(toy, 0, num_beams=1)[0][0], find(toy, 0, num_beams=6)[0][0]
        if narrow.finished and wide.finished:
            gains.append(wide.score - narrow.score)
    assert len(gains) > 30
    assert sum(gain < -1e-6 for gain in gains) <= len(gains) // 10
    assert sum(gains) > 0


@pytest.mark.parametrize("mode", MODES)
def test_a_caption_does_not_depend_on_its_batch(mode: dict[str, Any]) -> None:
    toy = Toy(7, sharpness=1.5)
    together = find(toy, 3, 1, 4, 1, **mode)
    for image, found in zip((3, 1, 4, 1), together, strict=True):
        [alone] = find(toy, image, **mode)
        assert [h.ids for h in found] == [h.ids for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone])


@pytest.mark.parametrize("mode", MODES)
def test_each_word_keeps_its_own_attention_and_probability(mode: dict[str, Any]) -> None:
    toy = Toy(9)
    for image, found in enumerate(find(toy, 0, 1, 2, 3, **mode)):
        for hypothesis in found:
            for place, word in enumerate(hypothesis.ids):
                read = [START, *hypothesis.ids[:place]]
                expected = toy.next(image, read)
                assert hypothesis.attention[place, : place + 1].tolist() == read
                assert not hypothesis.attention[place, place + 1 :].any()
                assert hypothesis.log_probs[place] == pytest.approx(float(expected[word]), abs=1e-5)
                likeliest = expected.exp().topk(5)
                assert [i for i, _ in hypothesis.alternatives[place]] == likeliest.indices.tolist()
                assert [p for _, p in hypothesis.alternatives[place]] == pytest.approx(likeliest.values.tolist())


@given(seed=st.integers(0, 10_000), ngram=st.integers(1, 3), sample=st.booleans())
@settings(max_examples=40, deadline=None)
def test_blocked_ngrams_never_occur(seed: int, ngram: int, sample: bool) -> None:
    found = find(
        Toy(5, seed), 0, num_beams=3, num_return_sequences=3, no_repeat_ngram_size=ngram, do_sample=sample, max_length=8
    )
    for hypothesis in found[0]:
        grams = Counter(tuple(hypothesis.ids[i : i + ngram]) for i in range(len(hypothesis.ids) - ngram + 1))
        assert max(grams.values(), default=1) == 1
        assert all(math.isfinite(p) for p in [hypothesis.score, *hypothesis.log_probs])


@given(seed=st.integers(0, 10_000), least=st.integers(1, 4), most=st.integers(4, 7), sample=st.booleans())
@settings(max_examples=40, deadline=None)
def test_lengths_and_bans_are_kept(seed: int, least: int, most: int, sample: bool) -> None:
    fields = {"min_length": least, "max_length": most, "do_sample": sample, "num_return_sequences": 3}
    start, state = Toy(6, seed).start(0, 1)
    for found in generate(Toy(6, seed), start, state, GenerationConfig(**fields), end_id=END, banned=[START, 3]):
        assert found
        for hypothesis in found:
            assert least <= len(hypothesis.ids) <= most
            assert not {START, END, 3} & set(hypothesis.ids)


@pytest.mark.parametrize("mode", MODES)
def test_a_given_beginning_is_kept_and_read_by_the_model(mode: dict[str, Any]) -> None:
    toy = Toy(8)
    for hypothesis in find(toy, 0, prefix=(4, 5), **mode)[0]:
        assert hypothesis.ids[:2] == [4, 5]
        assert hypothesis.log_probs[1] == pytest.approx(toy.likelihood(0, (4, 5)) - toy.likelihood(0, (4,)), abs=1e-5)
    with pytest.raises(ValueError, match=r"prefix has 7 words, more than max_length \(6\)"):
        find(toy, 0, prefix=(4, 5, 4, 5, 4, 5, 4))


class Endless(Toy):
    """Ends only where it must."""

    def next(self, image: int, read: list[int]) -> Tensor:
        logits = super().next(image, read).clone()
        logits[END] = -50.0
        return logits.log_softmax(-1)


@pytest.mark.parametrize("mode", MODES)
def test_a_caption_without_an_end_is_cut(mode: dict[str, Any]) -> None:
    for hypothesis in find(Endless(7), 0, **mode)[0]:
        assert not hypothesis.finished
        assert len(hypothesis.ids) == 6
        assert hypothesis.score == pytest.approx(sum(hypothesis.log_probs) / 6**0.7, abs=1e-5)


def test_where_no_word_is_left_the_caption_ends() -> None:
    """Three words, none may occur twice: nothing can follow the third."""
    [[best]] = find(Endless(5), 0, num_beams=1, no_repeat_ngram_size=1, max_length=6)
    assert sorted(best.ids) == [2, 3, 4]


def test_groups_begin_differently_and_captions_are_not_repeated() -> None:
    toy = Toy(8, sharpness=1.0)
    differing = 0
    for image in range(10):
        [found] = find(toy, image, num_beams=4, num_beam_groups=4, num_return_sequences=4, diversity_penalty=50.0)
        assert len({tuple(h.ids) for h in found}) == len(found)
        differing += len({h.ids[0] for h in found}) == 4
    assert differing >= 8


def test_sampling_repeats_with_its_seed_and_follows_the_model() -> None:
    toy = Toy(6, sharpness=1.0)
    once, again = (find(toy, 0, do_sample=True, num_return_sequences=5, seed=3) for _ in range(2))
    assert [h.ids for h in once[0]] == [h.ids for h in again[0]]
    drawn = Counter(
        hypothesis.ids[0]
        for seed in range(40)
        for hypothesis in find(toy, 0, do_sample=True, num_return_sequences=100, max_length=1, seed=seed)[0]
    )
    expected = toy.next(0, [START]).exp()
    expected[END] = 0
    expected /= expected.sum()
    for word in range(2, 6):
        assert drawn[word] / 4000 == pytest.approx(float(expected[word]), abs=0.03)


def test_sampling_from_the_likeliest_alone_is_greedy() -> None:
    for image in range(10):
        toy = Toy(6)
        for only in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}):
            assert find(toy, image, do_sample=True, **only)[0][0].ids == greedy(toy, image)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"num_beams": 0}, "num_beams is 0; expected 1 to 100"),
        ({"num_return_sequences": 4}, r"num_return_sequences is 4; expected at most num_beams \(3\)"),
        ({"num_beams": 4, "num_beam_groups": 3}, r"num_beam_groups is 3; expected a divisor of num_beams \(4\)"),
        ({"min_length": 9, "max_length": 5}, r"min_length is 9; expected 0 to max_length \(5\)"),
        ({"top_p": 0.0}, "top_p is 0.0; expected more than 0"),
        ({"temperature": float("nan")}, "temperature is nan; expected float"),
        ({"num_beams": True}, "num_beams is True; expected int"),
        ({"bad_words": {"dog"}}, "bad_words is {'dog'}; expected tuple"),
        *(
            ({name: 10_000}, rf"{name} is 10000; expected [01] to \d+\.")
            for name in ("num_beams", "max_length", "num_return_sequences", "num_alternatives", "length_penalty")
        ),
        ({"min_length": 10_000}, r"min_length is 10000; expected 0 to max_length \(20\)"),
        ({"prefix": "a " * 1001}, r"prefix is 'a a .*\.\.\.; expected at most 2,000 characters"),
        ({"bad_words": ["a"] * 1001}, r"bad_words is \('a', .*\.\.\.; expected at most 1,000 words"),
        ({"prefix": "a \udcff"}, r"prefix is 'a \\udcff'; expected Unicode text"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        GenerationConfig(**fields)
    assert len(str(caught.value)) < 300


def test_the_largest_settings_are_searched_and_give_finite_scores() -> None:
    most = {
        name: GenerationConfig.bounds[name][1] for name in ("num_alternatives", "length_penalty", "diversity_penalty")
    }
    for hypothesis in find(Toy(6), 0, num_beams=100, num_return_sequences=100, num_beam_groups=50, **most)[0]:
        assert math.isfinite(hypothesis.score) and all(math.isfinite(p) for p in hypothesis.log_probs)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_banned_is_not_among_the_alternatives(mode: dict[str, Any]) -> None:
    banned = (3, 4)
    for hypothesis in find_banning(Toy(7), banned, {**mode, "num_alternatives": 7}):
        for alternatives in hypothesis.alternatives:
            assert {i for i, _ in alternatives} == {1, 2, 5, 6}  # all others, with their own probabilities
            assert all(p > 0 for _, p in alternatives)


def find_banning(toy: Toy, banned: tuple[int, ...], fields: dict[str, Any]) -> list[Hypothesis]:
    start, state = toy.start(0)
    config = GenerationConfig(**{"max_length": 6, **fields})
    return generate(toy, start, state, config, end_id=END, banned=[START, *banned])[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_search_stops_before_the_step_at_which_its_caller_says_so(mode: dict[str, Any]) -> None:
    class Counted(Endless):
        steps = 0

        def step(self, words: Tensor, state: ToyState) -> ToyStep:
            self.steps += 1
            return super().step(words, state)

    toy = Counted(7)
    start, state = toy.start(0, 1)
    config = GenerationConfig(**{**mode, "max_length": 200})
    with pytest.raises(GenerationStopped, match="stopped before they were finished"):
        generate(toy, start, state, config, end_id=END, banned=[START], stopping_criteria=lambda: toy.steps == 3)
    assert toy.steps == 3
