"""What the user gets back from a caption: a sentence, its words, and images of where the model looked."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from hf_captioner import Caption, ImageError, Word


@pytest.fixture
def caption() -> Caption:
    left, right = np.array([[1.0, 0.0]], np.float32), np.array([[0.0, 1.0]], np.float32)
    words = (
        Word("dogs", 0.25, left, (("dog", 0.5), ("dogs", 0.25))),
        Word("run", 0.75, right, (("run", 0.75),)),
    )
    return Caption("dogs run", words, score=-1.23456)


def test_it_reads_as_its_sentence(caption: Caption) -> None:
    assert str(caption) == "dogs run"
    assert f"{caption}" == "dogs run"


def test_its_dict_is_json_and_has_attention_only_where_asked_for(caption: Caption) -> None:
    plain = json.loads(json.dumps(caption.to_dict()))
    assert plain["caption"] == "dogs run" and plain["confidence"] is None and plain["score"] == -1.2346
    assert plain["words"][0] == {"text": "dogs", "probability": 0.25, "alternatives": [["dog", 0.5], ["dogs", 0.25]]}
    assert caption.to_dict(attention=True)["words"][1]["attention"] == [[0.0, 1.0]]


def test_an_overlay_lights_the_words_place_at_the_images_own_size(caption: Caption) -> None:
    image = Image.new("RGB", (90, 40), (120, 120, 120))
    lit = [np.asarray(caption.overlay(word=index, image=image)).astype(float) for index in (0, 1, -1)]
    assert lit[0].shape == (40, 90, 3)
    assert lit[0][:, :20].mean() > 1.5 * lit[0][:, -20:].mean()
    assert lit[1][:, -20:].mean() > 1.5 * lit[1][:, :20].mean()
    np.testing.assert_array_equal(lit[1], lit[2])


def test_a_word_that_is_not_there_is_named(caption: Caption) -> None:
    with pytest.raises(IndexError, match="word is 2, but the caption has 2 words"):
        caption.overlay(2, Image.new("RGB", (10, 10)))


def test_a_contact_sheet_has_the_image_and_a_tile_a_word(caption: Caption) -> None:
    sheet = caption.contact_sheet(Image.new("RGB", (480, 240), (120, 120, 120)))
    three_tiles = 3 * (240 + 12) + 12
    assert sheet.width == three_tiles
    assert sheet.height > 120


def test_without_an_image_it_asks_for_one(caption: Caption) -> None:
    with pytest.raises(ImageError, match=r"does not know its image; give one"):
        caption.overlay(0)


def test_several_candidates_are_in_its_dict_itself_first(caption: Caption) -> None:
    both = dataclasses.replace(caption, others=(dataclasses.replace(caption, text="a dog"),))
    assert [candidate["caption"] for candidate in both.to_dict()["candidates"]] == ["dogs run", "a dog"]
    assert [candidate.text for candidate in both.candidates] == ["dogs run", "a dog"]
    assert "candidates" not in caption.to_dict()
