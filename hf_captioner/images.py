"""Anything Pillow opens becomes an upright RGB image, and an image becomes the model's pixels."""

import io
import math
import os
import re
import stat
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from PIL import Image, TiffTags, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from hf_captioner.arrays import from_array
from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import ImageError
from hf_captioner.rgb import to_rgb

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | np.ndarray | Tensor
"""A path, a file's bytes, a binary file object, a Pillow image, or an array or tensor: (H, W), (H, W, C) or (C, H, W)
with C = 1, 3 or 4, of uint8, or of floats from 0 to 1."""

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
"""What counts as an image in a folder; a path given by name is always tried."""

MAX_FILE_BYTES = 400_000_000
"""A larger file is not read."""

FORBIDDEN_FORMATS = {"EPS", "IPTC"}
"""Formats that Pillow reads and we do not: EPS is run by an outside program, and IPTC may hold an EPS."""

MIN_SIDE = 16
"""Pixels that each side of an image has at least: of a smaller one the model would say something all the same."""

MAX_ASPECT = 20
"""The longer side over the shorter one, at most: the model reads a square."""

MAX_PIXELS_BY_FORMAT = {"JPEG2000": 10_000_000}
"""Limits for formats whose decoder would take more than five seconds (10 s at 22 million pixels, lossless)."""

PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""A warnings filter that ignores what Pillow's modules issue."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> the transposition that undoes it."""


def open_image(source: ImageSource, *, min_side: int | None = None) -> Image.Image:
    """The image as a person sees it: upright, RGB, transparent parts white; an animation's first frame.

    With `min_side`, a JPEG may be decoded at a reduced scale, its sides still at least this many pixels.

    Raises ImageError for everything else: also for a truncated file, for more than MAX_FILE_BYTES, and, before they are
    decoded, for more pixels than `PIL.Image.MAX_IMAGE_PIXELS` (about 89 million) or MAX_PIXELS_BY_FORMAT allow.
    While it decodes it takes at most about 20 bytes of memory a pixel, and for headers ten times the file's size.
    """
    if min_side is not None and min_side < 1:
        raise ValueError(f"min_side is {min_side}; expected at least 1 pixel.")
    with _without_warnings():
        if isinstance(source, np.ndarray | Tensor):
            return to_rgb(from_array(source))
        if isinstance(source, Image.Image):
            opened = _upright_rgb(source, source_name(source))
            return opened.copy() if opened is source else opened
        if isinstance(source, bytes | bytearray | memoryview):
            content = bytes(source)
            return _decode(io.BytesIO(content), source_name(source), len(content), min_side)
        if hasattr(source, "read"):
            content = _content(cast(BinaryIO, source))
            return _decode(io.BytesIO(content), source_name(source), len(content), min_side)
        if isinstance(source, str) and is_url(source):
            raise ImageError(f"{source}: {NOT_DOWNLOADED}.")
        if isinstance(source, str | os.PathLike):
            return _read(Path(source), min_side)
    raise ImageError(
        f"An image cannot be a {type(source).__name__}; expected a path, bytes, a file, a Pillow image, an array or a "
        "tensor: several images are a list or a tuple, and any other iterable is for stream."
    )


def source_name(source: ImageSource) -> str:
    """What messages call an image."""
    match source:
        case str() | os.PathLike():
            return str(Path(source))
        case bytes() | bytearray() | memoryview():
            return "the bytes given"
        case Image.Image():
            return "the Pillow image"
        case np.ndarray():
            return "the array"
        case Tensor():
            return "the tensor"
        case _:
            return "the file object"


def check_shape(image: Image.Image, name: str) -> None:
    """Raise ImageError for an image that is too small or too elongated to be captioned."""
    short, long = sorted(image.size)
    if short < MIN_SIDE:
        raise ImageError(
            f"{name}: the image has only {image.width} x {image.height} pixels; expected at least "
            f"{MIN_SIDE} on each side."
        )
    if long > MAX_ASPECT * short:
        raise ImageError(
            f"{name}: the image has {image.width} x {image.height} pixels, which is too elongated; expected at most "
            f"{MAX_ASPECT} times as many on one side as on the other: crop it."
        )


NOT_DOWNLOADED = "a URL is not read; download it first and give the path of the file"


def is_url(path: str) -> bool:
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.isalnum()


def read_pixels(source: ImageSource, config: CaptionerConfig) -> Tensor:
    """`preprocess(open_image(source))`; a JPEG is decoded at no less than twice the size, enough for antialiasing.

    Raises ImageError for one that cannot be opened, or has a side of less than MIN_SIDE pixels or a ratio of its sides
    of more than MAX_ASPECT.
    """
    return preprocess(read_resized(source, config), config)


def read_resized(source: ImageSource, config: CaptionerConfig) -> Image.Image:
    """The RGB image of S x S pixels that the model reads, before it is normalised. Raises as `read_pixels`."""
    image = open_image(source, min_side=2 * config.image_size)
    check_shape(image, source_name(source))
    return _resized(image, config)


def preprocess(image: Image.Image, config: CaptionerConfig) -> Tensor:
    """RGB image -> (3, S, S) float32: resized to S x S as a whole, nothing cropped, then normalised."""
    image = _resized(image, config)
    # NumPy leaves the other cores to the encoder; whole rows, since three numbers at a time are slow.
    pixels = np.asarray(image).reshape(config.image_size, -1).astype(np.float32)
    mean, std = _mean_and_std(config)
    pixels -= np.tile(mean, config.image_size)
    pixels /= np.tile(std, config.image_size)
    return torch.from_numpy(pixels.reshape(config.image_size, config.image_size, 3)).permute(2, 0, 1)


def normalised(levels: Tensor, config: CaptionerConfig) -> Tensor:
    """Images (B, S, S, 3) uint8 -> (B, 3, S, S) float32 on their device, to the bit what `preprocess` makes of each."""
    mean, std = (torch.from_numpy(each).to(levels.device) for each in _mean_and_std(config))
    return ((levels.float() - mean) / std).permute(0, 3, 1, 2)


def _mean_and_std(config: CaptionerConfig) -> tuple[np.ndarray, np.ndarray]:
    """Of the levels of each colour, which go to 255."""
    return np.array(config.image_mean, np.float32) * 255, np.array(config.image_std, np.float32) * 255


def _resized(image: Image.Image, config: CaptionerConfig) -> Image.Image:
    size = (config.image_size, config.image_size)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def occlude(pixels: Tensor, cells: Tensor) -> Tensor:
    """Pixels (3, S, S), masks (R, h, w) -> (R, 3, S, S): the image's mean colour wherever a mask's cell is true."""
    hidden = torch.nn.functional.interpolate(cells[:, None].float(), pixels.shape[1:], mode="nearest").bool()
    return torch.where(hidden, pixels.mean((1, 2), keepdim=True), pixels)


def _content(file: BinaryIO) -> bytes:
    """All bytes of a file object, from its start where it can seek, so that it can be read again."""
    try:
        if file.seekable():
            file.seek(0)
        content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"The file object cannot be read ({error}).") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ImageError("The file object gives text; open it in binary mode, open(path, 'rb').")
    return bytes(content)


def _read(path: Path, min_side: int | None) -> Image.Image:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, a device has no end
            found = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise ImageError(f"{path}: this is {found}; expected an image.")
        with path.open("rb", buffering=0) as file:
            return _decode(file, str(path), status.st_size, min_side)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ImageError(f"{path}: {reason}.") from error


def _decode(raw: io.RawIOBase | io.BytesIO, name: str, size: int, min_side: int | None) -> Image.Image:
    if size == 0:
        raise ImageError(f"{name}: the file is empty; expected an image.")
    if size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: the file has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read.")
    Image.init()  # now and not earlier, so that formats which a plugin has registered count
    formats = [kind for kind in Image.ID if kind not in FORBIDDEN_FORMATS]
    try:
        with HeaderBudgetReader(raw) as file, Image.open(file, formats=formats) as image:
            _check_pixels(image, name)
            if hasattr(image, "tag_v2"):  # loading reads these directories too, beyond the guard
                exif = image.getexif()
                for tag in set(exif) & set(TiffTags.TAGS_V2_GROUPS):
                    exif.get_ifd(tag)
            file.left = math.inf
            if min_side is not None and isinstance(image, JpegImageFile):
                image.draft(None, (min_side, min_side))
            image.load()
            _check_pixels(image, name)  # an icon may hold a larger image than it says
            return _upright_rgb(image, name)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error} At most {Image.MAX_IMAGE_PIXELS} pixels are read.") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: this is no image in a format that Pillow reads.") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over: OSError, RuntimeError, struct.error
        raise ImageError(f"{name}: the image cannot be decoded ({error}).") from error


class HeaderBudgetReader(io.BufferedReader):
    """A file whose header can only be read so often.

    The tags of a TIFF directory may all point at the same bytes, and Pillow copies these for each: a file of 400 kB
    becomes gigabytes. EXIF, and what holds several JPEGs together, are such directories too.
    """

    def __init__(self, raw: io.RawIOBase | io.BytesIO) -> None:
        super().__init__(raw)
        self.left = 8.0 * raw.seek(0, io.SEEK_END) + (1 << 20)
        self.directories: set[bytes] = set()
        raw.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.left -= len(content)
        if self.left < 0:
            raise OSError("its header repeats itself")
        for start in (b"Exif\0\0", b"MPF\0"):
            if content.startswith(start):
                if start in self.directories or _repeats(content[len(start) :]):  # Pillow would join two
                    return bytes(len(content))
                self.directories.add(start)
        return content


def _repeats(directory: bytes) -> bool:
    """Whether the tags of an EXIF directory claim far more bytes than there are."""
    order = "<" if directory[:2] == b"II" else ">"
    try:
        start = struct.unpack_from(order + "I", directory, 4)[0]
        count = struct.unpack_from(order + "H", directory, start)[0]
    except struct.error:
        return False
    tags = directory[start + 2 : start + 2 + 12 * count]
    numbers = [number for (number,) in struct.iter_unpack(order + "4xI4x", tags[: len(tags) // 12 * 12])]
    return 8 * sum(numbers) > 8 * len(directory) + (1 << 20)  # a number has at most 8 bytes


def _check_pixels(image: Image.Image, name: str) -> None:
    most, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height  # Pillow itself only warns up to twice this
    limit = min(most or math.inf, MAX_PIXELS_BY_FORMAT.get(image.format or "", math.inf))
    if pixels > limit:
        raise ImageError(f"{name}: The image has {pixels} pixels. At most {limit} pixels are read.")


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name}: the image has no pixels ({image.width} x {image.height}).")
    try:
        image.load()
        method = UPRIGHT.get(_orientation(image))
        return to_rgb(image if method is None else image.transpose(method))
    except Exception as error:  # as above
        raise ImageError(f"{name}: the image cannot be decoded ({error}).") from error


def _orientation(image: Image.Image) -> int:
    exif = image.info.get("exif")
    try:
        if isinstance(exif, bytes) and _repeats(exif.removeprefix(b"Exif\0\0")):
            return 1
        if len(image.info.get("Raw profile type exif", "")) > 1 << 17:  # hexadecimal, and more than a JPEG can hold
            return 1
        return image.getexif().get(Base.Orientation, 1)
    except Exception:  # as above; the image can be seen, perhaps lying on its side
        return 1


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore Pillow's warnings; what matters becomes an ImageError.

    warnings.catch_warnings would at its end put back the filters of its beginning, and so undo what other threads
    have done to them meanwhile. Here each thread adds one entry to a list and takes one off the same list.
    """
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, PILLOW_WARNINGS)
    try:
        yield
    finally:
        with suppress(ValueError):  # somebody has emptied the list
            filters.remove(PILLOW_WARNINGS)
