"""Folders to the Hugging Face Hub, each in one commit; it moves files and knows no model."""

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from hf_captioner.hub.card import is_generated
from hf_captioner.hub.checkpoint import CARD, MAX_BYTES, own_file
from hf_captioner.hub.download import one_sentence

logger = logging.getLogger(__name__)

STARTER = "Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference"
"""All that the README.md says which the Hub puts into a new Space."""

Patterns = Sequence[str] | str | None


def full_repo_id(repo_id: str, token: str | bool | None = None) -> str:
    """OWNER/NAME: where a bare NAME is pushed to, as the Hub puts it under the account that the token is of."""
    if "/" in repo_id:
        return repo_id
    with one_sentence(repo_id):
        return f"{HfApi(token=token).whoami()['name']}/{repo_id}"


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    space_sdk: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str,
    create_pr: bool = False,
    overwrite_card: bool = True,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    delete_patterns: Patterns = None,
    stale: Collection[str] = (),
) -> CommitInfo:
    """Push a folder's files in one commit. An unchanged file is not sent.

    The repository is made where it is missing; a branch must exist. Without `overwrite_card` a README.md that a person
    wrote or edited on the Hub stays as it is. The patterns choose among the folder's files, and what is deleted on the
    Hub, as in `HfApi.upload_folder`. stale: files that an earlier push may have brought; they go where this one does
    not bring them. Raises CheckpointError for a link that leaves the folder, and where the Hub refuses or cannot be
    reached; the repository's files are then as they were.
    """
    api = HfApi(token=token)
    with one_sentence(repo_id + (f" at branch {branch}" if branch else "")):
        made = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=space_sdk)
        repo_id = made.repo_id
        there = set(api.list_repo_files(repo_id, repo_type=repo_type, revision=branch))
        keep_card = CARD in there and not overwrite_card and _is_own_card(api, repo_id, repo_type, branch)
        if keep_card:
            logger.warning(
                "%s: README.md was written or edited by a person; it is left as it is, unless you say to overwrite it.",
                repo_id,
            )
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        allowed, ignored = _listed(allow_patterns), _listed(ignore_patterns)
        for path in paths:
            own_file(folder, path)
        chosen = filter_repo_objects(
            (path for path in paths if not (keep_card and path == CARD)),
            allow_patterns=allowed,
            ignore_patterns=ignored,
        )
        operations: list[Any] = [CommitOperationAdd(path, folder / path) for path in chosen]
        gone = set(filter_repo_objects(stale, allow_patterns=allowed, ignore_patterns=ignored))
        if delete_patterns is not None:
            gone |= set(filter_repo_objects(there, allow_patterns=_listed(delete_patterns)))
        operations += [CommitOperationDelete(path) for path in sorted(gone & (there - {*paths}))]
        # create_commit, not upload_folder: the latter may split a slow upload into several commits.
        with _own_words(repo_id):
            return api.create_commit(
                repo_id,
                operations,
                repo_type=repo_type,
                revision=branch,
                commit_message=commit_message,
                create_pr=create_pr,
            )


@contextlib.contextmanager
def _own_words(repo_id: str) -> Iterator[None]:
    """What the client logs of a commit without changes, in a sentence of ours."""

    def say(record: logging.LogRecord) -> bool:
        if "empty commit" not in record.getMessage():
            return True
        logger.info("%s: nothing has changed since the last push, so there is no new commit.", repo_id)
        return False

    client = logging.getLogger("huggingface_hub.hf_api")
    client.addFilter(say)
    try:
        yield
    finally:
        client.removeFilter(say)


def _listed(patterns: Patterns) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else None if patterns is None else list(patterns)


def _is_own_card(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> bool:
    """Whether a person wrote or edited the card of the Hub's repository."""
    # Outside the cache, which would else name as newest a commit of which it has the card only.
    with tempfile.TemporaryDirectory() as elsewhere:
        where: Any = {"repo_type": repo_type, "revision": revision, "local_dir": elsewhere}
        if (api.hf_hub_download(repo_id, CARD, dry_run=True, **where).file_size or 0) > MAX_BYTES[CARD]:
            return True
        card = Path(api.hf_hub_download(repo_id, CARD, **where)).read_text(encoding="utf-8", errors="replace")
        is_starter = card.rpartition("---\n")[2].strip() == STARTER
        return not is_generated(card) and not is_starter
