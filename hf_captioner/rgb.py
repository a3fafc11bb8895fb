"""Any mode of Pillow's -> RGB of eight bits a channel, in little memory."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

WHITE = (255, 255, 255)

TILE = 1024
"""Side of the tiles, in pixels, in which conversions that make several copies go through an image."""


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; what is transparent is white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    on_white = Image.new("RGB", image.size)
    for box, tile in _tiles(image):
        tile = tile.convert("RGBA")
        opaque = tile.getchannel("A").getextrema() == (255, 255)  # as most images with an alpha channel are
        if not opaque:
            tile = Image.alpha_composite(Image.new("RGBA", tile.size, (*WHITE, 255)), tile)
        on_white.paste(tile.convert("RGB"), box)
    return on_white


def _eight_bit(image: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits; Pillow's own conversion would clip everything above 255 to white."""
    extremes = [(values.min(), values.max()) for values in (_finite(tile) for _, tile in _tiles(image))]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    if image.mode == "F" or low < 0 or high > 65535:
        high = max(high - low, 1e-9)
    elif high <= 255 and not image.mode.startswith("I;16"):
        low, high = 0, 255
    else:
        low, high = 0, 65535 if high > 255 else max(high, 1e-9)
    grey = Image.new("L", image.size)
    for box, tile in _tiles(image):
        values = ((_finite(tile) - low) * (255 / high)).round().clip(0, 255)
        grey.paste(Image.fromarray(values.astype(np.uint8)), box)
    return grey


def _finite(tile: Image.Image) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # some kinds of NaN are warned of
        return np.nan_to_num(np.asarray(tile).astype(np.float64), posinf=0, neginf=0)


def _tiles(image: Image.Image) -> Iterator[tuple[tuple[int, int], Image.Image]]:
    """The image's tiles with their upper left corners."""
    for top in range(0, image.height, TILE):
        for left in range(0, image.width, TILE):
            corner = min(left + TILE, image.width), min(top + TILE, image.height)
            yield (left, top), image.crop((left, top, *corner))
