"""A captioner says the same whatever state it is in and whatever else is in the batch, and stops when it is told to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hf_captioner import Caption, ConfigError, GenerationConfig, ImageCaptioner, Word
from hf_captioner.caption import TOLERANCE
from hf_captioner.errors import GenerationStopped
from hf_captioner.images import read_pixels


def test_in_bfloat16_it_computes_so_and_stays_what_it_is(tiny_captioner: ImageCaptioner, image: Image.Image) -> None:
    pixels = read_pixels(image, tiny_captioner.config)[None]
    plain = tiny_captioner.encode(pixels).values
    tiny_captioner.dtype = torch.bfloat16
    rounded = tiny_captioner.encode(pixels).values
    assert (plain.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(rounded.float(), plain, atol=0.05, rtol=0.05)
    caption = tiny_captioner.caption(image)
    assert all(0 < word.probability <= 1 and abs(word.attention.sum() - 1) < 0.01 for word in caption.words)
    assert {parameter.dtype for parameter in tiny_captioner.parameters()} == {torch.float32}


def test_training_mode_changes_no_caption(tiny_captioner: ImageCaptioner, image: Image.Image) -> None:
    tiny_captioner.decoder.dropout.p = 0.9
    expected = tiny_captioner.caption(image).to_dict(attention=True)
    tiny_captioner.train()
    for _ in range(3):
        assert tiny_captioner.caption(image).to_dict(attention=True) == expected
    assert tiny_captioner.training


CASTS: dict[str, Callable[[ImageCaptioner], ImageCaptioner]] = {
    "half": lambda captioner: captioner.half(),
    "bfloat16": lambda captioner: captioner.bfloat16(),
    "to a dtype": lambda captioner: captioner.to(torch.bfloat16),
    "to a device and a dtype": lambda captioner: captioner.to("cpu", torch.float16),
    "twice": lambda captioner: captioner.half().bfloat16().bfloat16(),
}


@pytest.mark.parametrize("cast", CASTS)
def test_cast_it_captions_and_cast_back_it_is_the_same(
    tiny_captioner: ImageCaptioner, image: Image.Image, cast: str
) -> None:
    plain = tiny_captioner.caption(image).to_dict(attention=True)
    captioner = CASTS[cast](tiny_captioner)
    assert captioner is tiny_captioner and captioner.dtype in (torch.float16, torch.bfloat16)
    dtype = captioner.dtype
    for word in captioner.caption(image).words:
        assert 0 < word.probability <= 1 and word.attention.sum() == pytest.approx(1, abs=0.01)
    pixels = read_pixels(image, captioner.config)[None]
    assert captioner.encode(pixels).values.dtype == dtype
    assert captioner.to("cpu").dtype == dtype  # what only moves does not cast
    assert captioner.float().dtype == torch.float32
    assert captioner.caption(image).to_dict(attention=True) == plain


def test_a_dtype_in_which_it_cannot_compute_is_one_sentence(tiny_captioner: ImageCaptioner, image: Image.Image) -> None:
    for cast in (lambda: tiny_captioner.double(), lambda: tiny_captioner.to(torch.float64)):
        with pytest.raises(ConfigError, match=r"dtype is torch\.float64; expected auto, float32, bfloat16, float16"):
            cast()
    assert tiny_captioner.caption(image).text


def test_the_unknown_word_is_neither_said_nor_an_alternative(
    tiny_captioner: ImageCaptioner, image: Image.Image
) -> None:
    with torch.no_grad():
        tiny_captioner.decoder.output.bias[[0, 1, 3]] = 30.0  # the likeliest by far
    for options in ({}, {"num_beams": 1}, {"do_sample": True}, {"num_alternatives": 100}, {"bad_words": ["zebra"]}):
        caption = tiny_captioner.caption(image, **options)
        assert caption.words and "<" not in caption.text
        for word in caption.words:
            assert word.alternatives and not {"<unk>", "<pad>", "<start>"} & {text for text, _ in word.alternatives}
    features = tiny_captioner.encode(read_pixels(image, tiny_captioner.config)[None])
    with pytest.raises(ConfigError, match=r"The model doesn't know 'zebra' of the prefix"):
        tiny_captioner.caption_features(features, GenerationConfig(prefix="a zebra"))


def near(one: Any, other: Any) -> bool:
    """Whether two forms for JSON are the same but for numbers within TOLERANCE and the places of near alternatives."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            near_alternatives(one[key], other[key]) if key == "alternatives" else near(one[key], other[key])
            for key in one
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(near(a, b) for a, b in zip(one, other, strict=True))
    return bool(abs(one - other) <= TOLERANCE) if isinstance(one, float) else one == other


def near_alternatives(one: list[Any], other: list[Any]) -> bool:
    return near([p for _, p in one], [p for _, p in other]) and all(
        abs(dict(one).get(text, one[-1][1]) - dict(other).get(text, other[-1][1])) <= TOLERANCE
        for text in {text for text, _ in [*one, *other]}
    )


def test_the_dict_of_an_image_is_the_same_alone_and_in_a_batch_to_the_tolerance_stated(image_paths: list[Path]) -> None:
    captioner = ImageCaptioner.from_pretrained()
    alone = [captioner.caption(path, num_return_sequences=2).to_dict(attention=True) for path in image_paths]
    for batch_size in (2, 5):
        together = captioner.caption(image_paths, batch_size=batch_size, num_return_sequences=2)
        for one, caption in zip(alone, together, strict=True):
            assert near(one, caption.to_dict(attention=True))
    assert not near(alone[0], alone[1])


def test_a_number_at_the_border_of_rounding_stays_within_the_tolerance() -> None:
    def form(noise: float) -> dict[str, Any]:
        word = Word("dog", 0.12345 + noise, np.full((1, 2), 0.123455 + noise), (("dog", 0.12345 + noise),))
        return Caption("dog", (word,), -1.23455 + noise, confidence=0.5 + noise).to_dict(attention=True)

    below, above = form(-4e-5), form(4e-5)
    assert below != above and near(below, above) and not near(below, form(4e-4))


# -- stopped -----------------------------------------------------------------------------------------------------------


def test_a_caller_can_stop_captions_that_take_too_long(
    tiny_captioner: ImageCaptioner, image: Image.Image, image_paths: list[Path]
) -> None:
    asked = 0

    def third_time() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    options: dict[str, Any] = {"min_length": 20, "stopping_criteria": third_time}
    with pytest.raises(GenerationStopped):
        tiny_captioner.caption(image, **options)
    assert asked == 3
    asked, results = -25, tiny_captioner.stream(image_paths, batch_size=1, **options)
    assert isinstance(next(results), Caption)  # 21 steps
    with pytest.raises(GenerationStopped):
        list(results)
    assert tiny_captioner.caption(image, stopping_criteria=lambda: False).text == tiny_captioner.caption(image).text
