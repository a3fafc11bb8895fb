"""A visitor's photo as the page keeps it: what is shown, and what the model reads."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import ImageError
from hf_captioner.images import ImageSource, open_image, preprocess, read_resized

MAX_DISPLAY_SIDE = 1280
"""Longest side of the photo on the page, in pixels."""
THUMBNAIL_SIDE = 192
"""Longest side of a photo in a list, in pixels: two for each of the 96 that the page gives it."""


@dataclass(frozen=True)
class Photo:
    """One visitor's photo. The page holds it, not the server, and sends `model_input` along with each question."""

    shown: Image.Image
    """RGB, at most MAX_DISPLAY_SIDE pixels long."""
    model_input: Image.Image
    """RGB, S x S: what the model reads, before it is normalised."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON form: `image`, a JPEG as a data URL; `input`, a PNG in base64; `colour`, the mean one, RGB."""
        colour = np.asarray(self.model_input).mean((0, 1)).round().astype(int).tolist()
        return {"image": jpeg_url(self.shown), "input": _encoded(self.model_input, "PNG"), "colour": colour}


def read_photo(source: ImageSource, config: CaptionerConfig) -> Photo:
    """Raises ImageError."""
    model_input = read_resized(source, config)
    return Photo(_at_most(open_image(source, min_side=MAX_DISPLAY_SIDE), MAX_DISPLAY_SIDE), model_input)


def pixels_of(model_input: str, config: CaptionerConfig) -> Tensor:
    """The `input` of `Photo.to_dict` -> (3, S, S), the model's input. Raises ImageError."""
    try:
        content = base64.b64decode(model_input, validate=True)
    except ValueError:  # also of characters that are no ASCII
        raise ImageError("The photo's data is not base64; send it as the page gave it.") from None
    image = open_image(content)
    if image.size != (config.image_size, config.image_size):
        raise ImageError(
            f"The photo's data has {image.width} x {image.height} pixels, but this page's model reads "
            f"{config.image_size} x {config.image_size}. Upload the photo again."
        )
    return preprocess(image, config)


def thumbnail(source: ImageSource) -> str:
    """A small JPEG as a data URL. Raises ImageError."""
    return jpeg_url(_at_most(open_image(source, min_side=THUMBNAIL_SIDE), THUMBNAIL_SIDE))


def jpeg_url(image: Image.Image) -> str:
    return f"data:image/jpeg;base64,{_encoded(image, 'JPEG', quality=88)}"


def image_error(error: ImageError, name: str) -> str:
    """What is wrong with an image that the library calls by this name, in a visitor's words and without the name."""
    match error.__cause__:
        case UnidentifiedImageError():
            return "This file isn't an image we can open. Use JPEG, PNG, WebP or GIF."
        case Image.DecompressionBombError():
            return "This photo has too many pixels. Use a smaller one."
        case None:
            message = str(error).removeprefix(f"{name}: ")
            return message[:1].upper() + message[1:]
        case _:
            return "This photo is damaged or incomplete."


def _at_most(image: Image.Image, side: int) -> Image.Image:
    image.thumbnail((side, side))
    return image


def _encoded(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()
