"""Augmentation keeps what the captions say: repeatable, of the same size, and never flipped against a named side."""

import random

import numpy as np
import pytest
from PIL import Image

from train.batches import AUGMENTATIONS, GREY, augment


@pytest.fixture
def photograph() -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:, 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_same_draw_gives_the_same_picture_of_the_same_size(photograph: Image.Image, name: str) -> None:
    first, again, other = (
        augment(photograph, AUGMENTATIONS[name], random.Random(seed), may_flip=True) for seed in (1, 1, 2)
    )
    assert first.size == photograph.size and first.mode == "RGB"
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def test_a_picture_is_flipped_only_where_it_may_be(photograph: Image.Image) -> None:
    def is_flipped(seed: int, may_flip: bool) -> bool:
        pixels = np.asarray(augment(photograph, AUGMENTATIONS["mild"], random.Random(seed), may_flip=may_flip))
        return bool(pixels[:, :5, 2].mean() > pixels[:, :5, 0].mean())

    assert 60 < sum(is_flipped(seed, True) for seed in range(200)) < 140
    assert not any(is_flipped(seed, False) for seed in range(200))


def test_only_the_strong_form_hides_rectangles(photograph: Image.Image) -> None:
    def hides(name: str, seed: int) -> bool:
        pixels = np.asarray(augment(photograph, AUGMENTATIONS[name], random.Random(seed), may_flip=True))
        return bool((pixels == GREY).all(2).sum() > 20)

    assert not any(hides("mild", seed) for seed in range(100))
    assert 20 < sum(hides("strong", seed) for seed in range(100)) < 60
