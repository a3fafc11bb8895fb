"""A search on a device that computes while the host goes on waits for it seldom, and says the same."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_captioner import CaptionerConfig, GenerationConfig
from hf_captioner.modeling import generation
from hf_captioner.modeling.decoder import Decoder
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.modeling.generation import generate
from tests.modeling.test_generation import END, MODES, START, Toy, find


@pytest.mark.parametrize("prefix", [(), (4, 5)])
@pytest.mark.parametrize("mode", [*MODES, {"num_beams": 3, "no_repeat_ngram_size": 1}])
@pytest.mark.parametrize("words", [3, 100])
def test_looking_seldom_which_images_are_done_changes_nothing(
    mode: dict[str, Any], prefix: tuple[int, ...], words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, images = Toy(6, sharpness=1.5), tuple(range(6))
    each_word = find(toy, *images, prefix=prefix, **{**mode, "max_length": 11})
    lengths = {max(len(h.ids) for h in found) for found in each_word}
    assert len(lengths) > 1, "all images end together"
    monkeypatch.setattr(generation, "words_between_looks", lambda device: words)
    seldom = find(toy, *images, prefix=prefix, **{**mode, "max_length": 11})
    for one, other in zip(each_word, seldom, strict=True):
        assert [replace(h, attention=None) for h in one] == [replace(h, attention=None) for h in other]
        assert all(torch.equal(a.attention, b.attention) for a, b in zip(one, other, strict=True))


class Waits(TorchDispatchMode):
    """Counts what a GPU is waited for by: values that the host asks for, and what comes from the host."""

    WAITING = (
        "_local_scalar_dense",
        "nonzero",
        "is_nonzero",
        "masked_select",
        "unique",
        "_unique",
        "equal",
        "lift_fresh",
    )

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # what in inference mode arrives as a whole
            if (result := func.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        result, name = func(*args, **kwargs), func.overloadpacket.__name__
        tensors = [part for part in tree_leaves((args, kwargs, result)) if isinstance(part, Tensor)]
        masked = name.startswith("index") and any(part.dtype == torch.bool for part in tensors[1:])
        if name.startswith(self.WAITING) or masked or len({part.device for part in tensors}) > 1:
            self.counted[name] += 1
        return result


def test_what_waits_is_counted() -> None:
    numbers = torch.arange(4.0)
    there, large = numbers.to("meta"), numbers > 1
    for waiting in (
        lambda: numbers[large],
        lambda: numbers[2].item(),
        lambda: bool(large.any()),
        lambda: numbers.unique(),
        lambda: numbers.masked_select(large),
        lambda: numbers.clone().__setitem__(large, numbers[:2]),
        lambda: numbers.to(there),
        lambda: there[[0, 1]],
        lambda: there[torch.zeros(1, dtype=torch.long)],
        lambda: torch.tensor([1], device="meta"),
    ):
        with torch.inference_mode(), Waits() as waits:
            waiting()
        assert waits.counted
    with torch.inference_mode(), Waits() as waits:
        numbers.index_fill(0, numbers.long(), 0)[numbers.long()].topk(2).values.masked_fill(large[:2], 0).double()
    assert not waits.counted


def searched(mode: dict[str, Any], words: int, device: str) -> Counter[str]:
    """What was waited for in a search of two images for captions of so many words, by a real decoder."""
    config = CaptionerConfig(23, hidden_size=16, backward_hidden_size=8)
    torch.manual_seed(0)
    decoder, grid = Decoder(config, 12).to(device), FeatureMap(torch.randn(2, 6, 12, device=device), 2, 3)
    settings = GenerationConfig(**{**mode, "min_length": words, "max_length": words})
    with torch.inference_mode(), Waits() as waits:
        start = torch.full((2,), START, device=device)
        generate(decoder, start, decoder.start(grid), settings, end_id=END, banned=[START, 3], prefix=(4, 5))
    return waits.counted


@pytest.mark.parametrize("mode", MODES)
def test_a_device_is_waited_for_only_to_see_which_images_are_done(
    mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for between in (1, 8):
        monkeypatch.setattr(generation, "words_between_looks", lambda device, between=between: between)
        assert searched(mode, 32, "cpu") - searched(mode, 16, "cpu") == Counter(nonzero=16 // between)


@pytest.mark.parametrize("mode", MODES)
def test_between_two_looks_nothing_is_asked_of_the_device_nor_copied_to_it(
    mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device `meta` has no values: whoever asks for one gets an error."""
    assert (
        generation.words_between_looks(torch.device("meta")) > 1 == generation.words_between_looks(torch.device("cpu"))
    )
    monkeypatch.setattr(generation, "words_between_looks", lambda device: 100)
    steps = []
    monkeypatch.setattr(generation._Generation, "_collect", lambda self, pool, records: steps.extend(records))
    banned, noise = Counter(lift_fresh=1), Counter(_to_copy="do_sample" in mode)
    assert searched(mode, 32, "meta") == banned + noise
    assert len(steps) == 32
