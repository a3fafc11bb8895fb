"""Anything Pillow opens becomes an upright RGB photograph, and a photograph becomes the model's pixels."""

import io
import os
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hf_captioner.config import CaptionerConfig

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
"""A path, a file's bytes, a Pillow image, or an array (H, W, 3) or (H, W) of uint8."""

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
"""What counts as a picture in a folder; a path given by name is always tried."""

WHITE = (255, 255, 255)


class ImageError(ValueError):
    """A picture that cannot be used; the message names it and says why."""


def open_image(source: ImageSource) -> Image.Image:
    """The picture as a person would see it: upright, RGB, transparent parts white, an animation's first frame.

    Raises ImageError for everything else, also for a file that is cut short and for more pixels than Pillow's
    limit (`PIL.Image.MAX_IMAGE_PIXELS`, about 89 million), before they are decoded.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _upright_rgb(source.copy(), "the Pillow image")
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the bytes given", len(source))
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            if path.exists() and not path.is_file():
                raise ImageError(
                    f"{path}: this is {'a folder' if path.is_dir() else 'no regular file'}; expected a picture."
                )
            with path.open("rb") as file:
                return _decode(file, str(path), path.stat().st_size)
        except (OSError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ImageError(f"{path}: {reason}.") from error
    raise ImageError(
        f"A picture cannot be a {type(source).__name__}; expected a path, bytes, a Pillow image or a numpy array."
    )


def preprocess(photograph: Image.Image, config: CaptionerConfig) -> Tensor:
    """RGB photograph -> (3, S, S) float32: the whole of it resized to S x S, nothing cropped, then normalised."""
    size = (config.image_size, config.image_size)
    if photograph.size != size:
        photograph = photograph.resize(size, Image.Resampling.BILINEAR)
    # NumPy, for it leaves the processor's other cores to the encoder; a row at a time, for three numbers are too few.
    pixels = np.asarray(photograph).reshape(config.image_size, -1).astype(np.float32)
    pixels -= np.tile(np.float32(config.image_mean) * 255, config.image_size)
    pixels /= np.tile(np.float32(config.image_std) * 255, config.image_size)
    return torch.from_numpy(pixels.reshape(*size, 3)).permute(2, 0, 1)


def cover(pixels: Tensor, cells: Tensor) -> Tensor:
    """pixels (3, S, S) and R masks (R, h, w), whose cells divide the photograph evenly -> (R, 3, S, S): the
    photograph's mean colour wherever a cell is true."""
    hidden = torch.nn.functional.interpolate(cells[:, None].float(), pixels.shape[1:], mode="nearest").bool()
    return torch.where(hidden, pixels.mean((1, 2), keepdim=True), pixels)


def _from_array(array: np.ndarray) -> Image.Image:
    grey = array.ndim == 2
    if array.dtype != np.uint8 or array.size == 0 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageError(
            f"The array has shape {array.shape} and type {array.dtype}; expected (H, W, 3) or (H, W) of uint8."
        )
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _decode(file: IO[bytes], name: str, size: int) -> Image.Image:
    if size == 0:
        raise ImageError(f"{name}: the file is empty; expected a picture.")
    try:
        with Image.open(file) as picture:
            limit = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns up to twice this
            if limit is not None and picture.width * picture.height > limit:
                raise Image.DecompressionBombError(f"The picture has {picture.width * picture.height} pixels.")
            return _upright_rgb(picture, name)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error} At most {Image.MAX_IMAGE_PIXELS} pixels are read.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: this is no picture in a format that Pillow reads.") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over: OSError, RuntimeError, struct.error
        raise ImageError(f"{name}: the picture cannot be decoded ({error}).") from error


def _upright_rgb(picture: Image.Image, name: str) -> Image.Image:
    if 0 in picture.size:
        raise ImageError(f"{name}: the picture has no pixels ({picture.width} x {picture.height}).")
    try:
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        return _rgb(picture)
    except ImageError:
        raise
    except Exception as error:  # as above
        raise ImageError(f"{name}: the picture cannot be decoded ({error}).") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bit(picture)
    if picture.has_transparency_data:
        with_alpha = picture.convert("RGBA")
        background = Image.new("RGBA", picture.size, (*WHITE, 255))
        return Image.alpha_composite(background, with_alpha).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """16- and 32-bit grey to 8 bits: Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        values = np.nan_to_num(values, posinf=0, neginf=0)
    top = 65535 if picture.mode != "F" and values.max() > 255 else max(values.max(), 1e-9)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        low = values.min()
        values, top = values - low, max(values.max() - low, 1e-9)
    elif values.max() <= 255 and not picture.mode.startswith("I;16"):
        top = 255
    return Image.fromarray((values * (255 / top)).round().clip(0, 255).astype(np.uint8))
