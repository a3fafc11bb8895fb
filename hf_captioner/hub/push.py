"""Folders to the Hugging Face Hub: a checkpoint as a model, the page as a Space; it moves files and knows no model."""

import shutil
import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from hf_captioner.hub.card import is_generated
from hf_captioner.hub.checkpoint import CARD, CHECKPOINT_FILES, SMALL_FILES, read_config
from hf_captioner.hub.download import one_sentence, resolve
from hf_captioner.hub.packaged import PACKAGE, bundled_checkpoint, data_path

IGNORED = ("__pycache__", "_data", "training")
"""What of the package and the page does not go into a Space."""


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Push captioner",
    create_pr: bool = False,
    overwrite_card: bool = True,
) -> str:
    """Push a folder's files in one commit; return its URL, or the pull request's. An unchanged file is not sent.

    The repository is made where it is missing; a revision must be a branch that exists. Without `overwrite_card` a
    README.md that a person wrote or edited on the Hub stays as it is.
    Raises CheckpointError where the Hub refuses or cannot be reached; the repository's files are then as they were.
    """
    api = HfApi(token=token)
    with one_sentence(repo_id + (f" at revision {revision}" if revision else "")):
        sdk = "gradio" if repo_type == "space" else None
        repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk).repo_id
        kept = set() if overwrite_card or not _has_own_card(api, repo_id, repo_type, revision) else {folder / CARD}
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in kept)
        # create_commit, not upload_folder: the latter may split a slow upload into several commits.
        commit = api.create_commit(
            repo_id,
            [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files],
            repo_type=repo_type,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
        )
    return str(commit.pr_url or commit.commit_url)


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
) -> str:
    """Create or update the Space: the page, and the package with a checkpoint, so that it needs nothing else.

    model: folder or Hub id of the checkpoint that the page shows; None is the bundled one. Raises CheckpointError.
    """
    checkpoint = bundled_checkpoint() if model is None else resolve(model, token=token)
    read_config(checkpoint)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copytree(data_path("space"), folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*IGNORED))
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns(*IGNORED, "checkpoint"))
        (folder / PACKAGE.name / "checkpoint").mkdir()
        for name in {*SMALL_FILES, *CHECKPOINT_FILES}:
            if (checkpoint / name).exists():
                shutil.copy(checkpoint / name, folder / PACKAGE.name / "checkpoint")
        shutil.copy(data_path("model_card.md"), folder)
        message = "Push the captioner's page"
        return push_folder(folder, repo_id, repo_type="space", private=private, token=token, commit_message=message)
