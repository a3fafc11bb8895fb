"""Another captioner than the page's own, by the name that a visitor gives it."""

import tempfile
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from hf_captioner import CheckpointError, ConfigError, ImageCaptioner
from hf_captioner.demo.limits import check_search
from hf_captioner.hub.checkpoint import WEIGHTS
from hf_captioner.hub.download import one_sentence, resolve

MAX_COMPARED_BYTES = 1 << 28
"""Weights of a compared model; up to three of them are in memory at once, in float32."""

MAX_NAME_SHOWN = 100
"""Characters of a visitor's model that a message repeats."""


@lru_cache(2)
def load_captioner(
    name: str,
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
    *,
    folders: bool,
) -> ImageCaptioner:
    """The captioner of a public Hub repository or, with `folders`, of a folder; the last two stay in memory.

    PyTorch computes it: of a stranger's repository the weights are read and no graph. Nothing of a repository stays on
    the disk, or visitors could fill it. Raises CheckpointError, ConfigError.
    """
    if not folders:
        with one_sentence(name[:MAX_NAME_SHOWN]):
            validate_repo_id(name)
        if "/" not in name or Path(name).exists():
            raise CheckpointError(f"{name} is no Hub id.")
    with tempfile.TemporaryDirectory() as cache:
        folder = resolve(name, token=False, cache_dir=None if folders else cache)
        if (size := (folder / WEIGHTS).stat().st_size) > MAX_COMPARED_BYTES:
            raise CheckpointError(f"{name} has weights of {size:,} bytes; the page takes {MAX_COMPARED_BYTES:,}.")
        computed = torch.float32 if dtype == torch.int8 else dtype
        captioner = ImageCaptioner.from_pretrained(folder, device=device, dtype=computed, backend="torch")
    check_search(name, captioner.generation_config)
    return captioner


def load_error(name: str, error: CheckpointError | ConfigError, *, folders: bool) -> str:
    """Why a model was not loaded, without the settings of a command line that a visitor does not see.

    Who may not name folders learns only that it was not, so that no answer tells what this machine or its owner has.
    """
    if isinstance(error, ConfigError):
        return str(error)
    if not folders:
        shown = name[:MAX_NAME_SHOWN]
        return f"{shown} could not be loaded. Expected the owner/name of a public captioner on the Hugging Face Hub."
    match error.__cause__:
        case LocalEntryNotFoundError(__cause__=HfHubHTTPError()):
            return str(error)
        case LocalEntryNotFoundError():
            return f"{name} is not on this machine, and the Hugging Face Hub was not reached. Check the network."
        case _:
            return str(error)
