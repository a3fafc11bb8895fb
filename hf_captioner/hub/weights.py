"""model.safetensors: read strictly, stored in float16; nothing is ever unpickled."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hf_captioner.errors import CheckpointError

STORED = ("BF16", "F16", "F32")
"""Number formats that a checkpoint may hold; it is saved as F16 and computed as float32."""


def read_weights(path: Path, wanted: dict[str, list[int]]) -> dict[str, Tensor]:
    """Exactly the tensors wanted (name -> shape), as they are stored; the header is checked before any is read.

    Raises CheckpointError where the file is no whole safetensors file, holds other tensors, or numbers not finite.
    """
    with _opened(path) as file:
        _check_header(path, wanted, file)
        state = {name: file.get_tensor(name) for name in wanted}
    broken = _not_finite(state)
    if broken:
        raise CheckpointError(f"{path} holds numbers that are not finite in {broken}; take an earlier checkpoint.")
    return state


def stored_shapes(path: Path) -> dict[str, list[int]]:
    """Name -> shape of the tensors in a file. Raises CheckpointError where it is no whole safetensors file."""
    with _opened(path) as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def stored_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors in float16, as a checkpoint stores them, whatever they are held in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors):
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().half().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def check_weights(path: Path, wanted: dict[str, list[int]]) -> None:
    """Raise CheckpointError where the header says that `read_weights` would."""
    with _opened(path) as file:
        _check_header(path, wanted, file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is {_what_it_is(path, error)}.") from error


def as_float16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are stored. Raises CheckpointError for numbers that float16 cannot hold."""
    weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in tensors.items()}
    broken = _not_finite(weights)
    if broken:
        raise CheckpointError(f"Nothing is saved: float16 cannot hold the numbers in {broken}; training diverged.")
    return weights


def _not_finite(tensors: dict[str, Tensor]) -> str:
    """The names of the tensors that hold a NaN or an infinity."""
    return ", ".join(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))


def _check_header(path: Path, wanted: dict[str, list[int]], file: Any) -> None:
    """Raise CheckpointError unless the file holds exactly the tensors wanted, in their shapes, as floats."""
    slices = {name: file.get_slice(name) for name in file.keys()}
    found = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
    problems = [f"{name} is missing" for name in wanted if name not in found]
    problems += [f"{name} is not part of this captioner" for name in found if name not in wanted]
    for name, (shape, kind) in found.items():
        if name in wanted and list(shape) != wanted[name]:
            problems.append(f"{name} has shape {list(shape)}, expected {wanted[name]}")
        elif name in wanted and kind not in STORED:
            problems.append(f"{name} is {kind}, expected one of {', '.join(STORED)}")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{path} does not fit config.json: {'; '.join(problems[:3])}{more}.")


def _what_it_is(path: Path, error: Exception) -> str:
    """Why a file cannot be read as safetensors; a whole one has a brace as its ninth byte."""
    if isinstance(error, OSError):
        return f"not readable ({error})"
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith((b"PK\x03\x04", b"\x80")) and head[8:] != b"{":
        return "a pickle, which is never loaded; expected safetensors, as save_pretrained writes it"
    if head == b"version h":
        return "a Git LFS pointer and not the weights themselves; run `git lfs pull`"
    return f"no whole safetensors file ({error}); download or save it again"
