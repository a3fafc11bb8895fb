"""Where a captioner computes, in which precision, and by which library."""

import torch

from hf_captioner.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
BACKENDS = {"torch": ("float32", "bfloat16", "float16"), "onnx": ("float32", "int8")}
"""PyTorch and ONNX Runtime, each with the dtypes that it computes in."""


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


def resolve_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype of a name in DTYPES; `auto` is float32, in which the scores were measured. Raises ConfigError."""
    if dtype == "auto":
        return torch.float32
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ConfigError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}.")
    return found


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for torch.float32."""
    return str(dtype).removeprefix("torch.")


def resolve_backend(backend: str, dtype: torch.dtype, device: torch.device) -> str:
    """`torch` or `onnx`, or `auto` where either can compute in this dtype on this device. Raises ConfigError."""
    if backend not in ("auto", *BACKENDS):
        raise ConfigError(f"backend is {backend!r}; expected auto, {', '.join(BACKENDS)}.")
    name = dtype_name(dtype)
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
