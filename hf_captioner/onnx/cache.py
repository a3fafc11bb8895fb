"""Exports that are made once for each captioner and machine, and what they were measured to be worth there."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import constants

from hf_captioner.atomic import write_text
from hf_captioner.errors import CheckpointError
from hf_captioner.modeling.device import DTYPES, Way, dtype_name, machine
from hf_captioner.onnx.export import FOLDER, file_names

MEASURED = "seconds.json"
"""In a captioner's folder of the cache: seconds that a caption takes on this machine in each way."""


def find_export(own: Path | None, key: str, dtype: torch.dtype) -> Path | None:
    """The folder with a captioner's export: its checkpoint's own, where it has one, or this machine's; None without.

    A checkpoint's own export may not fit it; `OnnxRuntime` finds out.
    """
    names, kept = file_names(dtype), cache_folder(key)
    if own is not None and any((own / name).exists() for name in names):
        return own
    return kept if all((kept / name).exists() for name in names) else None


def cache_folder(key: str) -> Path:
    """Where the Hub's client has what libraries keep; it need not exist."""
    return Path(constants.HF_ASSETS_CACHE) / "hf-captioner" / FOLDER / key


def keep_export(key: str, export: Callable[[Path], object]) -> Path:
    """The folder of this machine's cache into which `export` has written all files or none.

    Raises CheckpointError where it cannot be written.
    """
    folder = cache_folder(key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder) as temporary:
            export(Path(temporary))
            for path in Path(temporary).iterdir():
                os.replace(path, folder / path.name)
    except OSError as error:
        raise CheckpointError(f"The export to ONNX cannot be kept in {folder} ({error}).") from error
    return folder


def keep_seconds(key: str, seconds: Mapping[Way, float]) -> None:
    """Keep how long a caption takes on this machine. Raises CheckpointError where that cannot be written."""
    found = {f"{way.backend} {dtype_name(way.dtype)}": spent for way, spent in seconds.items()}
    path = cache_folder(key) / MEASURED
    try:
        write_text(path, json.dumps({"machine": machine(), "seconds": found}, indent=2))
    except OSError as error:
        raise CheckpointError(f"What was measured cannot be kept in {path} ({error}).") from error


def kept_seconds(key: str) -> dict[Way, float] | None:
    """What `keep_seconds` kept; None where it did not, or on another machine."""
    try:
        kept = json.loads((cache_folder(key) / MEASURED).read_text(encoding="utf-8"))
        ways = [(*name.split(" "), float(spent)) for name, spent in kept["seconds"].items()]
        found = {Way(backend, DTYPES[dtype]): spent for backend, dtype, spent in ways}
        return found if kept["machine"] == machine() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # never measured, or by a version that wrote something else: it is measured again
