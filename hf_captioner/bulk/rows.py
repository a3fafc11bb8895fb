"""The image of a row: a mapping as `datasets` stores it, or the image itself."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from hf_captioner.errors import ImageError
from hf_captioner.images import ImageSource


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
        if isinstance(value, bytes | Image.Image | np.ndarray) or _is_stored_image(value):
            return image_in_value(value, name)
    return ImageError(f"{name}: there is no image in the row; found {', '.join(map(str, row)) or 'nothing'}.")


def image_in_value(value: Any, name: str) -> ImageSource | ImageError:
    """A value as `datasets` stores it, {bytes, path}, or an image in any other form."""
    if _is_stored_image(value):
        value = value["path"] if value.get("bytes") is None else value["bytes"]
    if value is None:
        return ImageError(f"{name}: the row has no image.")
    if isinstance(value, str) and is_url(value):
        return ImageError(f"{name}: {value} is a URL, which is not read; download the image and give its path.")
    if isinstance(value, str | os.PathLike | bytes | Image.Image | np.ndarray):
        return value
    return ImageError(
        f"{name}: the image is {_shortened(value)}; expected a path, a file's bytes, a Pillow image or an array."
    )


def is_url(path: str) -> bool:
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.isalnum()


def _is_stored_image(value: Any) -> bool:
    """Whether a value is an image as `datasets` stores it."""
    return isinstance(value, Mapping) and bool(value) and value.keys() <= {"bytes", "path"}


def _shortened(value: Any) -> str:
    text = repr(value)
    return f"{text[:40]}..." if len(text) > 43 else text
