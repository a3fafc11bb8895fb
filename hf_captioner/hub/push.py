"""Folders to the Hugging Face Hub: a checkpoint as a model, the page as a Space; it moves files and knows no model."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, SpaceCard
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from hf_captioner.hub.card import is_generated
from hf_captioner.hub.checkpoint import CARD, CHECKPOINT_FILES, read_description
from hf_captioner.hub.download import one_sentence, resolve
from hf_captioner.hub.packaged import PACKAGE, bundled_checkpoint, data_path

NOT_IN_A_SPACE = ("__pycache__", "_data", "training", "checkpoint")
"""What of the package does not go into a Space; its checkpoint is the one that the page shows."""

Patterns = Sequence[str] | str | None


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str,
    create_pr: bool = False,
    overwrite_card: bool = True,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    delete_patterns: Patterns = None,
) -> CommitInfo:
    """Push a folder's files in one commit. An unchanged file is not sent.

    The repository is made where it is missing; a branch must exist. Without `overwrite_card` a README.md that a person
    wrote or edited on the Hub stays as it is. The patterns choose among the folder's files, and what is deleted on the
    Hub, as in `HfApi.upload_folder`. Raises CheckpointError where the Hub refuses or cannot be reached; the
    repository's files are then as they were.
    """
    api = HfApi(token=token)
    with one_sentence(repo_id + (f" at branch {branch}" if branch else "")):
        sdk = "gradio" if repo_type == "space" else None
        repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk).repo_id
        keep_card = not overwrite_card and _has_own_card(api, repo_id, repo_type, branch)
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        chosen = filter_repo_objects(
            (path for path in paths if not (keep_card and path == CARD)),
            allow_patterns=_listed(allow_patterns),
            ignore_patterns=_listed(ignore_patterns),
        )
        operations: list[Any] = [CommitOperationAdd(path, folder / path) for path in chosen]
        if delete_patterns is not None:
            there = api.list_repo_files(repo_id, repo_type=repo_type, revision=branch)
            gone = filter_repo_objects(there, allow_patterns=_listed(delete_patterns))
            added = {operation.path_in_repo for operation in operations}
            operations += [CommitOperationDelete(path) for path in gone if path not in added]
        # create_commit, not upload_folder: the latter may split a slow upload into several commits.
        return api.create_commit(
            repo_id,
            operations,
            repo_type=repo_type,
            revision=branch,
            commit_message=commit_message,
            create_pr=create_pr,
        )


def _listed(patterns: Patterns) -> list[str] | None:
    return [patterns] if isinstance(patterns, str) else None if patterns is None else list(patterns)


def _has_own_card(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> bool:
    """Whether the Hub's repository has a card that a person wrote or edited."""
    if not api.file_exists(repo_id, CARD, repo_type=repo_type, revision=revision):
        return False
    # Outside the cache, which would else name as newest a commit of which it has the card only.
    with tempfile.TemporaryDirectory() as elsewhere:
        card = api.hf_hub_download(repo_id, CARD, repo_type=repo_type, revision=revision, local_dir=elsewhere)
        return not is_generated(Path(card).read_text(encoding="utf-8", errors="replace"))


def push_space(
    repo_id: str, *, model: str | None = None, private: bool | None = None, token: str | bool | None = None
) -> CommitInfo:
    """Create or update the Space: the page, and the package with a checkpoint, so that it needs nothing else.

    model: folder or Hub id of the checkpoint that the page shows; None is the bundled one. A Hub id is named in the
    Space's header, so that the Hub links the two. Raises CheckpointError.
    """
    checkpoint = bundled_checkpoint() if model is None else resolve(model, token=token)
    read_description(checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = folder / PACKAGE.name
        shutil.copytree(data_path("space"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns(*NOT_IN_A_SPACE))
        (package / "checkpoint").mkdir()
        for name in CHECKPOINT_FILES:
            if (checkpoint / name).exists():
                shutil.copy(checkpoint / name, package / "checkpoint")
        shutil.copy(data_path("model_card.md"), folder)
        if model is not None and checkpoint != Path(model):
            header = SpaceCard.load(folder / CARD)
            header.data.models = [model]
            header.save(folder / CARD)
        message = "Push the captioner's page"
        return push_folder(folder, repo_id, repo_type="space", private=private, token=token, commit_message=message)
