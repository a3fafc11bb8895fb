"""The captions that a visitor can ask for of one photo, without the server."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hf_captioner import Caption, ConfigError, ImageCaptioner, Word
from hf_captioner.demo.markup import EXAMPLES, LOW_CONFIDENCE, OUTSIDE
from hf_captioner.demo.questions import as_dict, covered_cells
from hf_captioner.demo.recaption import (
    LONGER,
    MASK_SIZE,
    MORE_VARIED,
    SHORTER,
    STYLES,
    CaptionRequest,
    first_caption,
    most_different,
    recaption,
)
from hf_captioner.errors import GenerationStopped
from hf_captioner.hub.packaged import data_path
from hf_captioner.images import read_pixels

EVERYTHING = np.ones((MASK_SIZE, MASK_SIZE), bool)


@dataclasses.dataclass(frozen=True)
class Visitor:
    """Somebody who has one photo before them."""

    captioner: ImageCaptioner
    pixels: Tensor

    @property
    def first(self) -> Caption:
        return first_caption(self.captioner, self.pixels, None)

    def asks(self, covered: np.ndarray | None = None, **requested: Any) -> list[Caption]:
        words = len(self.first.words)
        return recaption(self.captioner, self.pixels, CaptionRequest(**requested), covered, words)


@pytest.fixture
def visitor(tiny_captioner: ImageCaptioner, image_path: Path) -> Visitor:
    return Visitor(tiny_captioner, read_pixels(image_path, tiny_captioner.config))


def texts(captions: list[Caption]) -> list[str]:
    return [caption.text for caption in captions]


def test_the_page_says_what_python_says(visitor: Visitor, image_path: Path) -> None:
    assert visitor.first.text == visitor.captioner.caption(image_path).text
    same = visitor.captioner.caption(image_path, prefix="two dog", bad_words=["beach", "grass"])
    assert texts(visitor.asks(prefix="two dog", bad_words="beach, grass")) == [same.text]
    assert texts(visitor.asks(bad_words="beach grass")) == texts(visitor.asks(bad_words="beach,grass"))


def test_a_checkpoint_that_gives_several_captions_gives_its_best_one(visitor: Visitor) -> None:
    plain, best = visitor.captioner.generation_config, visitor.first.text
    visitor.captioner.generation_config = dataclasses.replace(plain, num_return_sequences=3)
    assert texts(visitor.asks()) == [visitor.first.text] == [best]


def test_a_caption_goes_on_from_the_first_words(visitor: Visitor) -> None:
    (caption,) = visitor.asks(prefix="  A black DOG ")
    assert caption.text.startswith("a black dog")
    assert visitor.asks(prefix=" ")[0].text == visitor.first.text


def test_words_that_are_left_out_do_not_occur(visitor: Visitor) -> None:
    unwanted = visitor.first.words[0].text
    assert unwanted not in visitor.asks(bad_words=f"submarine, {unwanted.upper()}")[0].text.split()
    assert unwanted not in visitor.asks(bad_words=f"red-{unwanted}", length=LONGER)[0].text.split()


def test_what_is_covered_is_not_seen(visitor: Visitor) -> None:
    flat = visitor.pixels.mean((1, 2), keepdim=True).expand_as(visitor.pixels)
    blind = first_caption(visitor.captioner, flat, None)
    assert texts(visitor.asks(EVERYTHING)) == [blind.text] != [visitor.first.text]


def test_only_the_covered_cells_are_hidden(visitor: Visitor) -> None:
    left = covered_cells([int(cell % MASK_SIZE < MASK_SIZE // 2) for cell in range(MASK_SIZE**2)])
    assert left is not None
    hidden = visitor.pixels.clone()
    hidden[:, :, : hidden.shape[2] // 2] = hidden.mean((1, 2))[:, None, None]
    expected = first_caption(visitor.captioner, hidden, None)
    (found,) = visitor.asks(left)
    assert found.text == expected.text and found.score == pytest.approx(expected.score, abs=1e-5)
    assert found.score != visitor.first.score


def test_a_brush_that_covers_nothing_changes_nothing(visitor: Visitor) -> None:
    for cells in ([], [0] * MASK_SIZE**2):
        assert covered_cells(cells) is None
    wrong: tuple[Any, ...] = ([1], [0] * 1023, [2] * 1024, ["1"] * 1024, [float("nan")] * 1024, [[0]] * 1024, None, {})
    for cells in wrong:
        with pytest.raises(ValueError, match="32 x 32 cells"):
            covered_cells(cells)


def test_lengths_are_what_they_say(saved_captioner: ImageCaptioner, image: Image.Image) -> None:
    visitor = Visitor(saved_captioner, read_pixels(image, saved_captioner.config))
    (shorter,), (longer,) = visitor.asks(length=SHORTER), visitor.asks(length=LONGER)
    assert 0 < len(shorter.words) < len(visitor.first.words) <= len(longer.words) - 2
    assert shorter.finished


def test_where_there_is_no_shorter_caption_it_is_said(visitor: Visitor) -> None:
    with pytest.raises(ConfigError, match="no shorter caption"):
        recaption(visitor.captioner, visitor.pixels, CaptionRequest(length=SHORTER), None, words=1)


def test_three_captions_differ_and_each_draw_is_another(visitor: Visitor) -> None:
    for style in STYLES:
        assert len(set(texts(visitor.asks(several=True, style=style)))) == 3
    drawn = [texts(visitor.asks(style=MORE_VARIED, seed=seed)) for seed in range(5)]
    assert len({text for (text,) in drawn}) > 1
    assert drawn[3] == texts(visitor.asks(style=MORE_VARIED, seed=3)), "a link shows the same again"


def caption_of(text: str) -> Caption:
    attention = np.full((2, 2), 0.25, np.float32)
    return Caption(text, tuple(Word(word, 0.5, attention, ()) for word in text.split()), 0.0)


def test_the_three_captions_are_those_that_differ_most() -> None:
    sentences = ["a dog runs", "a dog runs fast", "a dog runs away", "two children play", "a man climbs a rock"]
    chosen = texts(most_different([caption_of(text) for text in sentences]))
    assert chosen[0] == "a dog runs" and set(chosen[1:]) == {"two children play", "a man climbs a rock"}
    assert texts(most_different([caption_of("a dog")])) == ["a dog"]


def test_a_word_that_the_model_does_not_know_is_named(visitor: Visitor) -> None:
    with pytest.raises(ConfigError, match="doesn't know “submarine”, “…”\\. Try"):
        visitor.asks(prefix="two submarine …")


def test_a_request_that_makes_no_sense_is_a_sentence_without_names_of_code(visitor: Visitor) -> None:
    with pytest.raises(ConfigError) as error:
        visitor.asks(prefix="dog " * 30)
    assert str(error.value) == "The caption cannot start with 30 words. Use at most 20."
    whole = visitor.asks(bad_words="red-shirt, man", length=LONGER, prefix="dog " * 20)
    assert whole[0].text.startswith("dog dog")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"length": "Long"}, "length is 'Long'; expected one of Normal, Shorter, Longer"),
        ({"length": []}, "length"),
        ({"style": None}, "style"),
        ({"prefix": "x" * 201}, "first words are too long.* at most 200"),
        ({"prefix": None}, "first words"),
        ({"prefix": "\ud800"}, "first words"),
        ({"bad_words": ["dog"]}, "words to leave out"),
        ({"bad_words": "dog \udfff"}, "words to leave out"),
        ({"several": 1}, "Several is true or false"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 31}, "seed"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_a_field_of_another_kind_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CaptionRequest(**wrong)


def test_an_alternative_begins_another_caption(visitor: Visitor) -> None:
    words = as_dict(visitor.captioner, visitor.first)["words"]
    assert any(word["alternatives"] for word in words)
    for place, word in enumerate(words[:4]):
        for alternative, _ in word["alternatives"]:
            beginning = " ".join([*(each["text"] for each in words[:place]), alternative])
            assert visitor.asks(prefix=beginning)[0].text.startswith(beginning)


def test_nobody_waits_no_caption_is_written(visitor: Visitor) -> None:
    with pytest.raises(GenerationStopped):
        first_caption(visitor.captioner, visitor.pixels, lambda: True)
    with pytest.raises(GenerationStopped):
        recaption(visitor.captioner, visitor.pixels, CaptionRequest(), None, 5, stopping_criteria=lambda: True)


@pytest.fixture(scope="module")
def bundled() -> ImageCaptioner:
    return ImageCaptioner.from_pretrained()


def looks_at(captioner: ImageCaptioner, example: str) -> Visitor:
    return Visitor(captioner, read_pixels(data_path("space") / "examples" / EXAMPLES[example], captioner.config))


def test_the_bundled_model_is_shorter_and_longer(bundled: ImageCaptioner) -> None:
    visitor = looks_at(bundled, OUTSIDE)
    (shorter,), (longer,) = visitor.asks(length=SHORTER), visitor.asks(length=LONGER)
    assert len(shorter.words) < len(visitor.first.words) < len(longer.words)
    assert shorter.finished and longer.finished


def test_the_bundled_model_is_unsure_of_what_it_has_not_seen(bundled: ImageCaptioner) -> None:
    confidence = looks_at(bundled, OUTSIDE).first.confidence
    assert confidence is not None and confidence < LOW_CONFIDENCE


def test_without_the_camera_in_view_the_bundled_model_names_none(bundled: ImageCaptioner) -> None:
    """What the README's animation shows."""
    visitor = looks_at(bundled, "camera")
    word = next(word for word in visitor.first.words if word.text == "camera")
    mask = torch.from_numpy(word.attention)[None, None]
    seen = torch.nn.functional.interpolate(mask, (MASK_SIZE, MASK_SIZE), mode="bilinear").numpy()[0, 0]
    (caption,) = visitor.asks(seen >= np.quantile(seen, 0.8))
    assert "camera" not in caption.text.split()
