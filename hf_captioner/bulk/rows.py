"""The elements of an iterable as images: paths, images, rows as `datasets` stores them, images with a name."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from hf_captioner.bulk.shards import NamedImage
from hf_captioner.errors import ImageError
from hf_captioner.images import NOT_DOWNLOADED, ImageSource, is_url

SINGLE = bytes | bytearray | memoryview | Image.Image | np.ndarray | Tensor
"""What is one image, although Python could iterate over some of it."""


def check_iterable(images: Any) -> None:
    """Raise TypeError for what is no iterable of images, also where Python could iterate over it."""
    if not isinstance(images, SINGLE | Mapping) and not hasattr(images, "read"):
        try:
            iter(images)
            return
        except TypeError:
            pass
    raise TypeError(
        f"Images cannot be read from a {type(images).__name__}; expected a path, a data set or an iterable of images: "
        "put a single image into a list, and take one split of a DatasetDict."
    )


def named_images(images: Iterable[Any]) -> Iterator[NamedImage]:
    """Each element as one image, named by its path where it is one, else by its number."""
    for index, element in enumerate(undecoded(images)):
        if isinstance(element, NamedImage):
            yield element
        elif isinstance(element, str | os.PathLike):
            name = path_name(element)
            yield NamedImage(name, image_in_value(element, name))
        else:
            yield NamedImage(f"#{index}", image_in_row(element, f"#{index}"))


def undecoded(rows: Any) -> Any:
    """A `datasets` data set whose images stay files' bytes, so that a broken one spoils no other row."""
    for name, feature in (getattr(rows, "features", None) or {}).items():
        if type(feature).__name__ == "Image":
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def image_in_row(row: Any, name: str) -> ImageSource | ImageError:
    """The image of a row: its `image`, else its first value that can only be an image; a value that is no row is taken
    for the image itself."""
    if not isinstance(row, Mapping) or _is_stored_image(row):
        return image_in_value(row, name)
    if "image" in row:
        return image_in_value(row["image"], name)
    for value in row.values():
        if isinstance(value, SINGLE) or _is_stored_image(value):
            return image_in_value(value, name)
    return ImageError(f"{name}: there is no image in the row; found {', '.join(map(str, row)) or 'nothing'}.")


def image_in_value(value: Any, name: str) -> ImageSource | ImageError:
    """A value as `datasets` stores it, {bytes, path}, or an image in any other form."""
    if _is_stored_image(value):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if value is None:
        return ImageError(f"{name}: the row has no image.")
    if isinstance(value, str) and is_url(value):
        what = name if name == value else f"{name}: {value}"
        return ImageError(f"{what}: {NOT_DOWNLOADED}.")
    if isinstance(value, str | os.PathLike | SINGLE) or hasattr(value, "read"):
        image: ImageSource = value
        return image
    return ImageError(
        f"{name}: the image is {_shortened(value)}; expected a path, a file or its bytes, a Pillow image or an array."
    )


def path_name(path: str | os.PathLike[str]) -> str:
    """A path as a person would write it: `./a//b.jpg` is a/b.jpg."""
    text = os.fspath(path)
    return text if is_url(text) else str(Path(text))


def _is_stored_image(value: Any) -> bool:
    """Whether a value is an image as `datasets` stores it."""
    return isinstance(value, Mapping) and bool(value) and value.keys() <= {"bytes", "path"}


def _shortened(value: Any) -> str:
    text = repr(value)
    return f"{text[:40]}..." if len(text) > 43 else text
