"""Data sets from the Hugging Face Hub."""

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from hf_captioner.errors import CheckpointError, DataError
from hf_captioner.hub.download import one_sentence

PREFIX = "hf://datasets/"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""OWNER/NAME."""


def local_data(source: str | Path) -> Path:
    """The local path of a data set: `source` itself, or the Hub's data set of that id, downloaded.

    `hf://datasets/OWNER/NAME` is always the Hub's; a bare OWNER/NAME is, where there is no such path here.
    Raises DataError where the Hub has none, or is not reached.
    """
    name = str(source)
    if not name.startswith(PREFIX) and (Path(source).exists() or not HUB_ID.fullmatch(name)):
        return Path(source)
    repo_id = name.removeprefix(PREFIX)
    if not HUB_ID.fullmatch(repo_id):
        raise DataError(f"{name} is no Hub data set; expected {PREFIX}OWNER/NAME.")
    try:
        with one_sentence(f"Data set {repo_id}"):
            return Path(snapshot_download(repo_id, repo_type="dataset"))
    except CheckpointError as error:
        raise DataError(str(error)) from error
