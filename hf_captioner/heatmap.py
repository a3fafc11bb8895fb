"""Attention maps (h, w) as heatmaps over the image: bright where the model looked."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WARM = np.array([255.0, 176.0, 32.0])
"""The tint of full attention, RGB."""
DIMMED = 0.4
"""Brightness where the model did not look."""
TILE = 240
"""Longest side of a contact sheet's tile, in pixels."""
COLUMNS = 4
PAPER, INK = (250, 250, 248), (30, 30, 30)


def overlay(image: Image.Image, attention: np.ndarray, *, strength: float = 1.0) -> Image.Image:
    """The image at its own size, dimmed where the model did not look and warm where it did.

    attention (h, w): its cells divide the image evenly. The brightest place is the most attended one, whatever its
    share; even attention lights the whole image evenly. strength 0 gives the image back, 1 the full effect.
    """
    if attention.ndim != 2 or attention.size == 0:
        raise ValueError(f"attention has shape {attention.shape}; expected (h, w).")
    light = _resized(attention, image.size)[:, :, None]
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    lit = pixels * (DIMMED + (1 - DIMMED) * light)
    lit += (WARM - lit) * (0.45 * light**2)
    mixed = pixels + (lit - pixels) * strength
    return Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8))


def contact_sheet(image: Image.Image, tiles: Sequence[tuple[str, np.ndarray]], *, title: str = "") -> Image.Image:
    """The image, then an overlay for each (label, attention), in rows of four, at most 1,020 pixels wide."""
    small = image.convert("RGB")
    small.thumbnail((TILE, TILE))
    images = [(small, "")] + [(overlay(small, attention), label) for label, attention in tiles]
    gap, text = 12, 26
    columns = min(COLUMNS, len(images))
    cell_width, cell_height = TILE + gap, small.height + text
    head = 40 if title else 0
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * cell_width + gap, head + rows * cell_height + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), _fitted(title, sheet.width - 2 * gap, 18), INK, _font(18))
    for index, (image, label) in enumerate(images):
        left = gap + index % columns * cell_width
        top = head + gap + index // columns * cell_height
        sheet.paste(image, (left + (TILE - small.width) // 2, top))
        draw.text((left + TILE // 2, top + small.height + 4), _fitted(label, TILE, 15), INK, _font(15), anchor="ma")
    return sheet


def _resized(attention: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """attention -> (H, W) in 0..1, the largest cell 1, interpolated smoothly."""
    top = float(attention.max())
    scaled = Image.fromarray((attention / top if top > 0 else attention).astype(np.float32))
    return np.asarray(scaled.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fitted(text: str, width: int, size: int) -> str:
    """The text, cut with an ellipsis to fit a width in pixels."""
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
