"""Folders to and from the Hugging Face Hub, and the card that goes with a model: it moves files and knows no model."""

import importlib.resources
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jinja2
from huggingface_hub import EvalResult, HfApi, ModelCardData, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hf_captioner.config import CaptionerConfig, Results

CHECKPOINT_FILES = ("config.json", "tokenizer.json", "model.safetensors")
OPTIONAL_FILES = ("README.md", "LICENSE")
PACKAGE = Path(__file__).resolve().parent


class CheckpointError(ValueError):
    """A checkpoint that cannot be found, read, or pushed; the message says what was found and what was expected."""


def data_path(name: str) -> Path:
    """`model_card.md` or `space`: beside the package in a clone, inside it where it was installed from a wheel."""
    installed = Path(str(importlib.resources.files("hf_captioner"))) / "_data" / name
    return installed if installed.exists() else PACKAGE.parent / name


def bundled_checkpoint() -> Path:
    """The folder of the checkpoint that comes with the package."""
    return PACKAGE / "checkpoint"


def resolve(
    name_or_folder: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The local folder of a checkpoint: a folder that exists, else the Hub repository of that id, downloaded.

    Raises CheckpointError for a path that does not exist, a repository or revision that is missing, and no network.
    """
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    if isinstance(name_or_folder, Path) or str(name_or_folder).startswith((".", "/", "~")) or folder.exists():
        raise CheckpointError(f"{name_or_folder} is not a folder; expected a checkpoint folder or a Hub id owner/name.")
    at = f"{name_or_folder}" + (f" at revision {revision}" if revision else "")
    try:
        path = snapshot_download(
            str(name_or_folder),
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
            allow_patterns=[*CHECKPOINT_FILES, *OPTIONAL_FILES],
        )
    except HFValidationError as error:
        raise CheckpointError(
            f"{name_or_folder!r} is neither a folder here nor a Hub id; expected a folder or owner/name."
        ) from error
    except GatedRepoError as error:
        raise CheckpointError(
            f"{at} is gated on the Hub; ask for access there and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{at} is neither a folder here nor a repository on the Hub that you may read; "
            "check the spelling, or log in with `hf auth login` if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{name_or_folder} has no revision {revision!r} on the Hub.") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{at} is not on this machine, and the Hub cannot be reached; check the network, or give a local folder."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(f"{at} could not be downloaded from the Hub: {error}") from error
    return Path(path)


def render_card(config: CaptionerConfig, repo_id: str = "your-name/your-captioner") -> str:
    """The model card for a configuration, with its measured results as model-index metadata."""
    results = config.results
    data = ModelCardData(
        language="en",
        license="other",
        license_name="non-commercial-weights",
        license_link="LICENSE",
        library_name="hf-captioner",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "attention", "flickr8k"],
        metrics=["bleu", "meteor", "rouge", "cider"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=_eval_results(results) if results else None,
    )
    template = jinja2.Environment(autoescape=False, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    source = data_path("model_card.md").read_text(encoding="utf-8")
    return template.from_string(source).render(
        card_data=data.to_yaml(), config=config, results=results, repo_id=repo_id
    )


def _eval_results(results: Results) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="Image Captioning",
            dataset_type=results.dataset.lower(),
            dataset_name=results.dataset,
            dataset_split=results.split,
            metric_type=name.partition("-")[0].lower(),
            metric_name=name,
            metric_value=round(100 * value, 2),
        )
        for name, value in results.scores.items()
    ]


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
    keep: Sequence[str] = (),
) -> str:
    """Push a folder's files in one commit and return its URL; files named in `keep` are not overwritten on the Hub.

    Raises CheckpointError where the Hub refuses or cannot be reached; the repository is then as it was.
    """
    api = HfApi(token=token)
    try:
        sdk = "gradio" if repo_type == "space" else None
        made = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, space_sdk=sdk)
        repo_id = made.repo_id
        kept = [name for name in keep if api.file_exists(repo_id, name, repo_type=repo_type, revision=revision)]
        commit = api.upload_folder(
            folder_path=folder,
            repo_id=repo_id,
            repo_type=repo_type,
            revision=revision,
            commit_message=commit_message,
            create_pr=create_pr,
            ignore_patterns=[*kept, "**/__pycache__/**"],
        )
    except HFValidationError as error:
        raise CheckpointError(f"{repo_id!r} is no Hub id; expected owner/name.") from error
    except (HfHubHTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = {
            401: " Log in with `hf auth login`.",
            403: " Your token may not write there.",
            429: " Wait and try again.",
        }
        raise CheckpointError(f"Pushing to {repo_id} failed: {error}.{hint.get(status or 0, '')}") from error
    return str(commit.commit_url)


def push_space(repo_id: str, *, private: bool | None = None, token: str | bool | None = None) -> str:
    """Create or update the Space: the page, and the package with its checkpoint, so that it needs nothing else."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ignore = shutil.ignore_patterns("__pycache__", "_data")
        shutil.copytree(data_path("space"), folder, dirs_exist_ok=True, ignore=ignore)
        shutil.copytree(PACKAGE, folder / "hf_captioner", ignore=ignore)
        shutil.copy(data_path("model_card.md"), folder / "model_card.md")
        return push_folder(
            folder, repo_id, repo_type="space", private=private, token=token, commit_message="Push the captioner's page"
        )
