"""Augmentation keeps what the captions say: repeatable, of the same size, and never flipped against a named side."""

import random

import numpy as np
import pytest
from PIL import Image

from hf_captioner.training.dataset import augment


@pytest.fixture
def image() -> Image.Image:
    """Red on the left, blue on the right."""
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:, 2] = 255
    return Image.fromarray(pixels)


def test_the_same_draw_gives_the_same_image_of_the_same_size(image: Image.Image) -> None:
    first, again, other = (augment(image, random.Random(seed), may_flip=True) for seed in (1, 1, 2))
    assert first.size == image.size and first.mode == "RGB"
    assert np.array_equal(np.asarray(first), np.asarray(again))
    assert not np.array_equal(np.asarray(first), np.asarray(other))


def test_an_image_is_flipped_only_where_it_may_be(image: Image.Image) -> None:
    def is_flipped(seed: int, may_flip: bool) -> bool:
        pixels = np.asarray(augment(image, random.Random(seed), may_flip=may_flip))
        return bool(pixels[:, :5, 2].mean() > pixels[:, :5, 0].mean())

    assert 60 < sum(is_flipped(seed, True) for seed in range(200)) < 140
    assert not any(is_flipped(seed, False) for seed in range(200))
