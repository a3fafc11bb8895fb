"""Folders to and from the Hugging Face Hub, and the card that goes with a model: it moves files and knows no model."""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.resources
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import CommitOperationAdd, EvalResult, HfApi, ModelCardData, constants, snapshot_download
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

from hf_captioner.config import CaptionerConfig, ConfigError, Results

CARD = "README.md"
CHECKPOINT_FILES = ("config.json", "tokenizer.json", "model.safetensors")
SMALL_FILES = ("config.json", "tokenizer.json", CARD, "LICENSE")
PACKAGE = Path(str(importlib.resources.files("hf_captioner")))
LARGEST = {"model.safetensors": 1 << 30}
"""Bytes of a checkpoint's file; one of more is neither fetched nor read."""
SMALL = 1 << 24
"""The same for every other file."""
SOMEONE = "your-name/your-captioner"
"""Stands for the repository in a card that has not been pushed yet."""
IGNORED = ("__pycache__", "_data")
"""What of the package and the page does not go into a Space."""
SIGNATURE = "<!-- Written by hf-captioner ({digest}). Once edited, this card is not overwritten. -->\n"


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read, written or pushed; one sentence says what was found and what to do."""


# -- where things are --------------------------------------------------------------------------------------------------


def data_path(name: str) -> Path:
    """`model_card.md` or `space`: inside the package where a wheel was installed, beside it in a clone."""
    installed = PACKAGE / "_data" / name
    return installed if installed.exists() else PACKAGE.parent / name


def bundled_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package."""
    return PACKAGE / "checkpoint"


def read_config(folder: Path) -> CaptionerConfig:
    """A checkpoint folder's config.json. Raises CheckpointError where it is missing, broken or another library's."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no config.json; expected {', '.join(CHECKPOINT_FILES)} there.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); expected a captioner's config.json.") from error
    own = {field.name for field in dataclasses.fields(CaptionerConfig)}
    if isinstance(values, dict) and len(own & values.keys()) < len(own) / 2:
        kind = f"model_type {values['model_type']!r}, " if "model_type" in values else ""
        keys = ", ".join(list(values)[:5]) or "none"
        raise CheckpointError(
            f"{path} is the configuration of another kind of model ({kind}keys {keys}); "
            "expected one that ImageCaptioner.save_pretrained wrote."
        )
    try:
        return CaptionerConfig.from_dict(values)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def resolve(
    name_or_folder: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The local folder of a checkpoint: a folder that exists, else the Hub repository of that id, downloaded.

    What looks like a path (a Path object; a leading `.`, `/` or `~`; more than one `/`) is never looked up on the Hub.
    The weights of a repository are fetched only once its config.json is found to be a captioner's.
    Raises CheckpointError for a path, repository, revision or file that is missing, and without a network.
    """
    name, folder = os.fspath(name_or_folder), Path(name_or_folder)
    if len(name) > 4096 or any(len(part) > 255 for part in folder.parts):
        raise CheckpointError(f"{name[:100]}... is too long; expected a checkpoint's folder, or a Hub id owner/name.")
    if name and folder.is_dir():
        files = {file: folder / file for file in CHECKPOINT_FILES}
        _check_sizes(name, {file: path.stat().st_size for file, path in files.items() if path.is_file()})
        return folder
    if folder.is_file():
        raise CheckpointError(f"{name} is a file; expected the folder that holds {', '.join(CHECKPOINT_FILES)}.")
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
    with _one_sentence(name + (f" at revision {revision}" if revision else "")):
        for wanted in (["config.json"], [*SMALL_FILES, *CHECKPOINT_FILES]):
            # Where the Hub is not reached nothing can be fetched, and what the cache holds was checked.
            with contextlib.suppress(DryRunError):
                planned: Any = fetch(revision=revision, allow_patterns=wanted, dry_run=True)
                _check_sizes(name, {file.filename: file.file_size for file in planned})
            folder = Path(fetch(revision=revision, allow_patterns=wanted))
            read_config(folder)
            revision = folder.name  # a snapshot's folder is named after its commit
    return folder


def _check_sizes(name: str, sizes: dict[str, int]) -> None:
    for file, size in sizes.items():
        most = LARGEST.get(file, SMALL)
        if size > most:
            raise CheckpointError(f"{name}: {file} has {size:,} bytes; a captioner's has at most {most:,}.")


@contextlib.contextmanager
def _one_sentence(what: str) -> Iterator[None]:
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


# -- the card ----------------------------------------------------------------------------------------------------------


def render_card(config: CaptionerConfig, repo_id: str = SOMEONE, *, licence: str | None = None) -> str:
    """The model card, from `model_card.md`: measured results as a table, and as model-index metadata where they
    were measured with the PTB tokenisation, so that they may be compared.

    licence: the text of the weights' own licence, which lies beside them as LICENSE; None where there is none.
    """
    results = config.results
    comparable = results if results and results.tokenization == "PTB" else None
    own_licence: dict[str, Any] = {}
    if licence is not None:
        name = "non-commercial" if "non-commercial" in licence else "custom"
        own_licence = {"license": "other", "license_name": name, "license_link": "LICENSE"}
    data = ModelCardData(
        language="en",
        library_name="hf-captioner",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "visual-attention"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=_eval_results(comparable) if comparable else None,
        metrics=sorted({_metric_type(name) for name in results.scores}) if results else None,
        **own_licence,
    )
    environment = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(data_path("model_card.md").read_text(encoding="utf-8"))
    return _signed(template.render(card_data=data, config=config, results=results, repo_id=repo_id, licence=licence))


def is_generated(card: str) -> bool:
    """Whether a card is as `render_card` wrote it: its last line holds the digest of all the others."""
    body, _, _ = card.removesuffix("\n").rpartition("\n")
    return card == _signed(f"{body}\n")


def _signed(body: str) -> str:
    return body + SIGNATURE.format(digest=hashlib.sha256(body.encode()).hexdigest()[:16])


def _metric_type(name: str) -> str:
    """The Hub's name of a metric: `BLEU-4` is `bleu`."""
    return name.partition("-")[0].lower()


def _eval_results(results: Results) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="Image Captioning",
            dataset_type=results.dataset.lower(),
            dataset_name=results.dataset,
            dataset_split=results.split,
            metric_type=_metric_type(name),
            metric_name=name,
            metric_value=round(100 * value, 2),
        )
        for name, value in results.scores.items()
    ]


# -- to the Hub --------------------------------------------------------------------------------------------------------


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
    with _one_sentence(repo_id + (f" at revision {revision}" if revision else "")):
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
