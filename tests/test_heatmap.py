"""A heatmap lights the part of the image that its cells stand for, and nothing else."""

import numpy as np
import pytest
from PIL import Image

from hf_captioner.heatmap import COLUMNS, TILE, contact_sheet, overlay

GREY = Image.new("RGB", (140, 70), (120, 120, 120))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 5), (6, 6)])
def test_one_hot_cell_lights_its_own_part(row: int, column: int) -> None:
    attention = np.zeros((7, 7), np.float32)
    attention[row, column] = 1
    lit = np.asarray(overlay(GREY, attention)).sum(2).astype(float)
    assert lit.shape == (70, 140)
    centre = lit[row * 10 + 5, column * 20 + 10]
    assert centre > 0.95 * lit.max()
    far = np.ones_like(lit, dtype=bool)
    far[max(0, row * 10 - 15) : row * 10 + 25, max(0, column * 20 - 30) : column * 20 + 50] = False
    assert lit[far].max() < 0.5 * centre


def test_even_attention_is_an_even_light() -> None:
    lit = np.asarray(overlay(GREY, np.full((7, 7), 1 / 49)))
    assert (lit == lit[0, 0]).all()


def test_strength_nought_is_the_image() -> None:
    attention = np.eye(7)
    assert np.array_equal(np.asarray(overlay(GREY, attention, strength=0)), np.asarray(GREY))
    half, full = (np.asarray(overlay(GREY, attention, strength=s)).astype(int) for s in (0.5, 1.0))
    assert abs(half - np.asarray(GREY)).sum() < abs(full - np.asarray(GREY)).sum()


def test_a_shape_that_is_no_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(h, w\)"):
        overlay(GREY, np.zeros(49))


@pytest.mark.parametrize(
    ("size", "words", "expected"),
    [  # columns of TILE + 12 pixels, rows of the tile's height + 26, 12 around, 40 for the title
        ((64, 64), 1, (2 * 252 + 12, 40 + 1 * (64 + 26) + 12)),
        ((480, 240), 3, (4 * 252 + 12, 40 + 1 * (120 + 26) + 12)),
        ((480, 240), 7, (4 * 252 + 12, 40 + 2 * (120 + 26) + 12)),
        ((2000, 90), 7, (4 * 252 + 12, 40 + 2 * (11 + 26) + 12)),
        ((90, 2000), 30, (4 * 252 + 12, 40 + 8 * (240 + 26) + 12)),
        ((1, 1), 1, (2 * 252 + 12, 40 + 1 * (1 + 26) + 12)),
    ],
)
def test_a_contact_sheet_has_the_image_and_a_tile_a_word(
    size: tuple[int, int], words: int, expected: tuple[int, int]
) -> None:
    assert (COLUMNS, TILE) == (4, 240)
    image = Image.new("RGB", size, (10, 200, 10))
    tiles = [(f"word{i}" * (30 if i == 0 else 1), np.full((7, 7), 1 / 49)) for i in range(words)]
    sheet = contact_sheet(image, tiles, title="a title " * 50)
    assert sheet.size == expected
    height = expected[1] - 40 - 12
    rows = -(-(words + 1) // 4)
    for index in range(words + 1):  # each tile's middle is green, and the paper between two tiles is not
        x = 12 + index % 4 * 252 + 119
        y = 40 + 12 + index // 4 * (height // rows) + (height // rows - 26) // 2
        red, green, blue = sheet.getpixel((x, y))  # type: ignore[misc]
        assert green > max(red, blue) + 40, index
    assert sheet.getpixel((4, 4)) == (250, 250, 248)
