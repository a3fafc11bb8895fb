"""Data sets from the Hugging Face Hub."""

from pathlib import Path
from typing import NamedTuple

from huggingface_hub import snapshot_download

from hf_captioner.errors import CheckpointError, DataError
from hf_captioner.hub.download import one_sentence
from hf_captioner.hub.evaluation import HUB_ID

PREFIX = "hf://datasets/"


class LocalData(NamedTuple):
    """Where a data set is on this machine."""

    path: Path
    """Its folder or file."""
    home: Path
    """The folder in which all of its files lie; the Hub's client keeps links at `path` to files beside it."""


def hub_id(source: str | Path) -> str | None:
    """The id of the Hub's data set that `source` names; None where that is a path of this machine.

    `hf://datasets/OWNER/NAME` is always the Hub's; a bare OWNER/NAME is, where there is no such path here.
    Raises DataError for what is no id after hf://datasets/.
    """
    name = str(source)
    if not name.startswith(PREFIX) and (Path(source).exists() or not HUB_ID.fullmatch(name)):
        return None
    repo_id = name.removeprefix(PREFIX)
    if not HUB_ID.fullmatch(repo_id):
        raise DataError(f"{name} is no Hub data set; expected {PREFIX}OWNER/NAME.")
    return repo_id


def local_data(source: str | Path) -> LocalData:
    """The data set `source`, downloaded where `hub_id` says that it is the Hub's.

    Raises DataError where the Hub has none, or is not reached.
    """
    repo_id = hub_id(source)
    if repo_id is None:
        path = Path(source)
        return LocalData(path, path.parent if path.is_file() else path)
    try:
        with one_sentence(f"Data set {repo_id}"):
            snapshot = Path(snapshot_download(repo_id, repo_type="dataset"))
    except CheckpointError as error:
        raise DataError(str(error)) from error
    return LocalData(snapshot, snapshot.parent.parent)
