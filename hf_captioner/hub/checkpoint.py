"""A checkpoint's files: weights read strictly, and everything written whole or not at all; nothing is unpickled."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import CheckpointError, ConfigError

CARD = "README.md"
CHECKPOINT_FILES = ("config.json", "tokenizer.json", "model.safetensors")
SMALL_FILES = ("config.json", "tokenizer.json", CARD, "LICENSE")
MAX_WEIGHTS_BYTES = {"model.safetensors": 1 << 30}
"""Bytes of a checkpoint's file; one of more is neither fetched nor read."""
MAX_FILE_BYTES = 1 << 24
"""The same for every other file."""

STORED = ("BF16", "F16", "F32")
"""Number formats that a checkpoint may hold; it is saved as F16 and computed as float32."""


def read_weights(path: Path, wanted: dict[str, list[int]]) -> dict[str, Tensor]:
    """Exactly the tensors wanted (name -> shape), as float32; the header is checked before any tensor is read.

    Raises CheckpointError where the file is no whole safetensors file, holds other tensors, or numbers not finite.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_slice(name) for name in file.keys()}
            _check_header(path, wanted, {n: (s.get_shape(), s.get_dtype()) for n, s in found.items()})
            state = {name: file.get_tensor(name).float() for name in wanted}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is {_what_it_is(path, error)}.") from error
    broken = _not_finite(state)
    if broken:
        raise CheckpointError(f"{path} holds numbers that are not finite in {broken}; take an earlier checkpoint.")
    return state


def as_float16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are stored. Raises CheckpointError for numbers that float16 cannot hold."""
    weights = {name: tensor.detach().half().contiguous().cpu() for name, tensor in tensors.items()}
    broken = _not_finite(weights)
    if broken:
        raise CheckpointError(f"Nothing is saved: float16 cannot hold the numbers in {broken}; training diverged.")
    return weights


def write_together(folder: Path, writers: dict[str, Callable[[Path], object]]) -> None:
    """Every file under a temporary name first, then all into place: a full disk leaves the old ones whole."""
    new = {name: folder / f".{name}.new" for name in writers}
    try:
        for name, write in writers.items():
            write(new[name])
        for name, path in new.items():
            os.replace(path, folder / name)
    finally:
        for path in new.values():
            path.unlink(missing_ok=True)


def _not_finite(tensors: dict[str, Tensor]) -> str:
    """The names of the tensors that hold a NaN or an infinity."""
    return ", ".join(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))


def _check_header(path: Path, wanted: dict[str, list[int]], found: dict[str, tuple[list[int], str]]) -> None:
    """Raise CheckpointError unless the file holds exactly the tensors wanted, in their shapes, as floats."""
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


def read_config(folder: Path) -> CaptionerConfig:
    """A checkpoint folder's config.json. Raises CheckpointError where it is missing, broken or another library's."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no config.json; expected {', '.join(CHECKPOINT_FILES)} there.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); expected a captioner's config.json.") from error
    own = {field.name for field in dataclasses.fields(CaptionerConfig)}
    if isinstance(values, dict) and len(own & values.keys()) < len(own) / 2:
        kind = f"model_type {values['model_type']!r}, " if "model_type" in values else ""
        keys = ", ".join(list(values)[:5]) or "none"
        raise CheckpointError(
            f"{path} is the configuration of another kind of model ({kind}keys {keys}); "
            "expected one that ImageCaptioner.save_pretrained wrote."
        )
    try:
        return CaptionerConfig.from_dict(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def check_sizes(name: str, sizes: dict[str, int]) -> None:
    for file, size in sizes.items():
        most = MAX_WEIGHTS_BYTES.get(file, MAX_FILE_BYTES)
        if size > most:
            raise CheckpointError(f"{name}: {file} has {size:,} bytes; a captioner's has at most {most:,}.")
