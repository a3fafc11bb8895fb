"""Where a captioner computes, and in which precision."""

import torch

from hf_captioner.errors import ConfigError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
