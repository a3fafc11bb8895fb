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


@pytest.mark.parametrize("size", [(64, 64), (2000, 90), (90, 2000), (1, 1)])
@pytest.mark.parametrize("words", [1, 7, 30])
def test_a_contact_sheet_has_a_tile_a_word(size: tuple[int, int], words: int) -> None:
    image = Image.new("RGB", size, (10, 200, 10))
    tiles = [(f"word{i}" * (30 if i == 0 else 1), np.full((7, 7), 1 / 49)) for i in range(words)]
    sheet = contact_sheet(image, tiles, title="a title " * 50)
    assert sheet.width <= COLUMNS * (TILE + 12) + 12
    green = np.asarray(sheet)[:, :, 1].astype(int) - np.asarray(sheet)[:, :, 2]
    if min(size) > 10:
        assert (green > 100).any()
    assert sheet.height < 3000
