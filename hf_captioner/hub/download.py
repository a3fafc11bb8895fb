"""Checkpoints from the Hugging Face Hub, and what its client raises as one sentence."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, the HTTP client's own base class
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_captioner.errors import CheckpointError
from hf_captioner.hub.checkpoint import (
    CHECKPOINT_FILES,
    CONFIG,
    REQUIRED_FILES,
    check_sizes,
    check_whole,
    finish_replacing,
    read_description,
)


def resolve(
    name_or_folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    beside: Sequence[str] = (),
) -> Path:
    """The local folder of a checkpoint: a folder that exists, else the Hub repository of that id, downloaded.

    What looks like a path (a Path object; a leading `.`, `/` or `~`; more than one `/`) is never looked up on the Hub.
    The weights of a repository are fetched only once its config.json is found to be a captioner's. beside: files of a
    repository that are fetched, too, where it has them.
    Raises CheckpointError for a path, repository, revision or file that is missing, and without a network.
    """
    name, folder = os.fspath(name_or_folder), Path(name_or_folder)
    if len(name) > 4096 or any(len(part) > 255 for part in folder.parts):
        raise CheckpointError(f"{name[:100]}... is too long; expected a checkpoint's folder, or a Hub id owner/name.")
    if name and folder.is_dir():
        finish_replacing(folder)
        check_whole(folder, name)
        return folder
    if folder.is_file():
        raise CheckpointError(f"{name} is a file; expected the folder that holds {', '.join(REQUIRED_FILES)}.")
    if not isinstance(name_or_folder, str) or name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1:
        raise CheckpointError(f"There is no folder {name}; expected a checkpoint's folder, or a Hub id owner/name.")

    fetch = functools.partial(
        snapshot_download,
        name,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    with one_sentence(name + (f" at revision {revision}" if revision else "")):
        for wanted in ([CONFIG], [*CHECKPOINT_FILES, *beside]):
            # Where the Hub is not reached nothing can be fetched, and what the cache holds was checked.
            with contextlib.suppress(DryRunError):
                planned: Any = fetch(revision=revision, allow_patterns=wanted, dry_run=True)
                check_sizes(name, {file.filename: file.file_size for file in planned})
            folder = Path(fetch(revision=revision, allow_patterns=wanted))
            read_description(folder)
            revision = folder.name  # a snapshot's folder is named after its commit
    check_whole(folder, name)
    return folder


@contextlib.contextmanager
def one_sentence(what: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into a CheckpointError of one sentence."""
    try:
        yield
    except CheckpointError:
        raise
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{what}: {_reason(error)}.") from error


def _reason(error: BaseException) -> str:
    match error:
        case HFValidationError():
            return "this is neither a folder here nor a Hub id; expected owner/name"
        case GatedRepoError():
            return "the repository is gated; ask for access on its page, then log in with `hf auth login`"
        case RepositoryNotFoundError():
            return (
                "this is neither a folder here nor a repository on the Hub that you may use; "
                "check the spelling, or log in with `hf auth login` if it is private"
            )
        case RevisionNotFoundError():
            return "the Hub's repository has no such revision"
        case LocalEntryNotFoundError(__cause__=HfHubHTTPError() as cause):
            return _reason(cause)
        case RuntimeError(__cause__=Exception() as cause):  # an upload that broke off
            return f"{str(error).rstrip('.')}: {_reason(cause)}"
        case LocalEntryNotFoundError():
            return (
                "this is not a folder here nor in the cache of this machine, and the Hub was not reached "
                "(no network, HF_HUB_OFFLINE or local_files_only); connect, or give a local folder"
            )
        case HfHubHTTPError(response=response):
            advice = {
                401: "log in with `hf auth login`, or give another token",
                403: "use a token that may do this",
                429: "wait and try again",
            }
            said = response.headers.get("X-Error-Message") or response.reason_phrase
            return f"the Hub refused ({response.status_code}, {said}); {advice.get(response.status_code, 'try again')}"
        case HTTPError():
            return f"the Hub at {constants.ENDPOINT} was not reached ({error}); check the network"
        case _:
            return " ".join(str(error).split()).rstrip(".")
