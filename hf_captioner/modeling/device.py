"""Where a captioner computes, in which precision, and by which library."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from hf_captioner.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
BACKENDS = {"torch": ("float32", "bfloat16", "float16"), "onnx": ("float32", "int8")}
"""PyTorch and ONNX Runtime, each with the dtypes that it computes in."""


class Way(NamedTuple):
    """How captions are computed."""

    backend: str
    dtype: torch.dtype


def quickest(seconds: Mapping[Way, float] | None, backend: str, dtype: torch.dtype | None) -> Way:
    """Of the ways that were timed the one that took the fewest seconds, with this backend, or any where it is `auto`,
    and in this dtype, or any where it is None; without a time PyTorch, in float32."""
    if backend == "onnx":
        return Way(backend, dtype or torch.float32)
    fits = {
        way: spent
        for way, spent in (seconds or {}).items()
        if backend in ("auto", way.backend) and dtype in (None, way.dtype)
    }
    return min(fits, key=fits.__getitem__, default=Way("torch", dtype or torch.float32))


def has_bfloat16() -> bool:
    """Whether the processor multiplies matrices in bfloat16: by AMX or AVX512-BF16, which Linux alone tells."""
    return bool({"amx_bf16", "avx512_bf16"} & set(_cpuinfo().split()))


def machine() -> str:
    """The processor and the threads that PyTorch takes on it."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def _cpuinfo() -> str:
    told = Path("/proc/cpuinfo")  # Linux alone has it
    return told.read_text(encoding="utf-8") if told.exists() else ""


def resolve_device(device: str | torch.device) -> torch.device:
    """`auto` is the first CUDA device where there is one, else the processor. Raises ConfigError."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        here = "auto, cpu, cuda" if torch.cuda.is_available() else "auto or cpu, for this machine has no CUDA device"
        raise ConfigError(f"device is {str(device)!r}, which cannot be used here; expected {here}.") from error
    return found


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The dtype of a name in DTYPES; None for `auto`. Raises ConfigError."""
    if dtype == "auto":
        return None
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ConfigError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}.")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def resolve_backend(backend: str, dtype: torch.dtype | None, device: torch.device) -> str:
    """`torch` or `onnx`, or `auto` where either can compute in this dtype on this device. Raises ConfigError."""
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"backend is {backend!r}; expected auto, {', '.join(BACKENDS)}.")
    name = dtype_name(dtype or torch.float32)
    able = [each for each in BACKENDS if name in BACKENDS[each] and (each == "torch" or device.type == "cpu")]
    if backend == "auto" and able:
        return able[0] if len(able) == 1 else "auto"
    if backend not in able:
        found = f"backend {backend}, dtype {name} and device {device.type}"
        raise ConfigError(f"{found} do not go together; {' and '.join(map(_abilities, BACKENDS))}.")
    return backend


def _abilities(backend: str) -> str:
    where = "" if backend == "torch" else " on the processor"
    return f"{backend} computes in {', '.join(BACKENDS[backend])}{where}"
