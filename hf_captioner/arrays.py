"""Arrays and tensors as Pillow images."""

import numpy as np
from PIL import Image
from torch import Tensor

from hf_captioner.errors import ImageError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Number of channels -> Pillow's mode."""
SLACK = 1e-3
"""How far a float may lie outside 0 to 1: what arithmetic does to it."""

EXPECTED = "expected (H, W), (H, W, C) or (C, H, W) with C = 1, 3 or 4, of uint8, or of floats from 0 to 1"


def from_array(array: np.ndarray | Tensor) -> Image.Image:
    """Grey, RGB or RGBA: uint8, or floats from 0 to 1; channels last, or first where only that makes sense.

    Raises ImageError for other shapes, types and values, such as pixels that are normalised already.
    """
    what = "tensor" if isinstance(array, Tensor) else "array"
    if isinstance(array, Tensor):
        array = _as_array(array)
    shape, kind = array.shape, array.dtype
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and shape[2] not in MODES and shape[0] in MODES:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in MODES or array.size == 0:
        several = "; give several images as a list" if array.ndim == 4 else ""
        raise ImageError(f"The {what} has shape {tuple(shape)} and type {kind}; {EXPECTED}{several}.")
    if array.dtype != np.uint8:
        array = _eight_bit(array, what)
    mode = MODES[array.shape[2]]
    return Image.fromarray(np.ascontiguousarray(array if mode != "L" else array[:, :, 0]))


def _as_array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.float()  # NumPy has no bfloat16
    found: np.ndarray = tensor.cpu().numpy()
    return found


def _eight_bit(array: np.ndarray, what: str) -> np.ndarray:
    """Floats from 0 to 1 as 0 to 255."""
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"The {what} has type {array.dtype}; {EXPECTED}: convert it by .astype('uint8').")
    low, high = float(array.min()), float(array.max())
    if not (low >= -SLACK and high <= 1 + SLACK):  # also for NaN
        raise ImageError(
            f"The {what} has floats from {low:.6g} to {high:.6g}; expected 0 to 1: divide by 255, or do not normalise."
        )
    return (array.clip(0, 1) * 255).round().astype(np.uint8)
