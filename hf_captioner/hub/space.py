"""The page as a Space on the Hub: with a server, from an allow-list of the package's files and the checkpoint that the
page shows, or static, from a folder that holds it all."""

import json
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, SpaceCard
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from hf_captioner.hub.card import is_generated, render_card, signed
from hf_captioner.hub.checkpoint import CARD, CHECKPOINT_FILES, LICENSE, own_file, read_description, read_text
from hf_captioner.hub.download import one_sentence, resolve
from hf_captioner.hub.packaged import PACKAGE, bundled_checkpoint, data_path
from hf_captioner.hub.push import full_repo_id, push_folder

PAGE_FILES = (CARD, "app.py", "requirements.txt", "examples/*.jpg", "examples/ATTRIBUTION.md")
"""What goes from the folder `space` into a Space."""
PACKAGE_FILES = ("**/*.py", "**/*.html", "**/*.css", "**/*.js", "py.typed")
"""What goes from the package, but for these folders; its checkpoint is the one that the page shows."""
NOT_IN_A_SPACE = ("__pycache__", "_data", "training", "checkpoint", "device")
PUSHED = "hf_captioner/pushed.txt"
"""The list of a Space's files that a push wrote, so that the next one can delete those that it no longer writes."""
FILE_LIST = "files.json"
"""The same of a static page."""


def push_space(
    repo_id: str,
    *,
    model: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    overwrite_card: bool = False,
) -> CommitInfo:
    """Create or update the Space: the page, and the package with a checkpoint, so that it needs nothing else.

    model: folder or Hub id of the checkpoint that the page shows; None is the bundled one. A Hub id is named in the
    Space's header, so that the Hub links the two. A README.md of the Space that a person wrote or edited stays as it
    is, unless `overwrite_card`. What an earlier push wrote and this one does not is deleted; no other file is.
    Raises CheckpointError.
    """
    checkpoint = bundled_checkpoint() if model is None else resolve(model, token=token)
    from_hub = model is not None and checkpoint != Path(model)
    repo_id = full_repo_id(repo_id, token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        package = folder / PACKAGE.name
        _copy(data_path("space"), PAGE_FILES, folder)
        _copy(PACKAGE, PACKAGE_FILES, package, without=NOT_IN_A_SPACE)
        _copy(checkpoint, CHECKPOINT_FILES, package / "checkpoint")
        shutil.copy(data_path("model_card.md"), folder)
        _write_cards(checkpoint, folder, package / "checkpoint", repo_id, model if from_hub else None)
        written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        (folder / PUSHED).write_text("".join(f"{path}\n" for path in written), encoding="utf-8")
        return _push_page(folder, repo_id, "gradio", private, token, overwrite_card)


def push_static_space(
    repo_id: str,
    folder: Path,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    overwrite_card: bool = False,
) -> CommitInfo:
    """Create or update a static Space from a page's folder; what is there is treated as by `push_space`.

    Raises CheckpointError.
    """
    return _push_page(folder, full_repo_id(repo_id, token), "static", private, token, overwrite_card)


def _push_page(
    folder: Path, repo_id: str, sdk: str, private: bool | None, token: str | bool | None, overwrite_card: bool
) -> CommitInfo:
    """Push a Space's folder; what an earlier push of either kind wrote goes where this one does not bring it."""
    return push_folder(
        folder,
        repo_id,
        repo_type="space",
        space_sdk=sdk,
        private=private,
        token=token,
        commit_message="Push the captioner's page",
        overwrite_card=overwrite_card,
        stale=_pushed_before(repo_id, token),
    )


def static_card(model: str | None) -> str:
    """The README.md of a static Space. model: the checkpoint's Hub id, or a folder, of which nothing is said."""
    return _page_card(data_path("space") / "static" / CARD, None if model is None or Path(model).is_dir() else model)


def _page_card(path: Path, model: str | None) -> str:
    page = SpaceCard.load(path)
    page.data.models = None if model is None else [model]
    return signed(f"{str(page).rstrip()}\n")


def _copy(source: Path, patterns: Sequence[str], target: Path, *, without: Collection[str] = ()) -> None:
    """Copy a folder's files that fit a pattern. Raises CheckpointError for a link that leaves the folder."""
    for path in sorted({path for pattern in patterns for path in source.glob(pattern)}):
        name = path.relative_to(source)
        hidden = any(part in without or part.startswith(".") for part in name.parts)
        if not hidden and own_file(source, name.as_posix()):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)


def _write_cards(checkpoint: Path, space: Path, target: Path, repo_id: str, model: str | None) -> None:
    """The Space's README.md, and the checkpoint's card unless a person wrote it. model: the checkpoint's Hub id."""
    description, card = read_description(checkpoint), read_text(checkpoint, CARD)
    if card is None or is_generated(card):
        terms = read_text(checkpoint, LICENSE)
        card = render_card(description, model or repo_id, license_text=terms, in_space=model is None)
        (target / CARD).write_text(card, encoding="utf-8")
    (space / CARD).write_text(_page_card(space / CARD, model), encoding="utf-8")


def _pushed_before(repo_id: str, token: str | bool | None) -> list[str]:
    """The files that the last push to this Space wrote, of either kind; none of those that it does not name is ever
    deleted."""
    pushed, listed = (_downloaded(repo_id, name, token) for name in (PUSHED, FILE_LIST))
    served = [] if pushed is None else [PUSHED, *pushed.splitlines()]
    static = [] if listed is None else _files_of_page(listed)
    return [*served, *static]


def _files_of_page(listed: str) -> list[str]:
    """What a static page's list names, itself included; nothing where it is somebody else's file of this name."""
    try:
        found = json.loads(listed)
        return [FILE_LIST, *map(str, found["files"])] if {"build", "files"} == found.keys() else []
    except (ValueError, TypeError, AttributeError):
        return []


def _downloaded(repo_id: str, name: str, token: str | bool | None) -> str | None:
    """A file of a Space; None where there is none."""
    with one_sentence(repo_id), tempfile.TemporaryDirectory() as elsewhere:
        try:
            path = HfApi(token=token).hf_hub_download(repo_id, name, repo_type="space", local_dir=elsewhere)
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None
        return Path(path).read_text(encoding="utf-8")
