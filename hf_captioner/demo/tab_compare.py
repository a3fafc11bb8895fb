"""The tab that compares two models on one image."""

import html
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from hf_captioner import CheckpointError, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.attention_view import attention_view, view_data
from hf_captioner.demo.limits import check_search, is_local
from hf_captioner.demo.session import start_session
from hf_captioner.demo.uploads import Upload, image_input, upload_error
from hf_captioner.demo.visits import TOO_LONG, Visits
from hf_captioner.errors import GenerationStopped
from hf_captioner.hub.checkpoint import WEIGHTS
from hf_captioner.hub.download import one_sentence, resolve
from hf_captioner.modeling.generation import StoppingCriteria

MAX_COMPARED_BYTES = 1 << 28
"""Weights of a compared model; up to three of them are in memory at once, in float32."""

MAX_NAME_SHOWN = 100
"""Characters of a visitor's model that a message repeats."""


def compare_tab(captioner: ImageCaptioner, visits: Visits, *, allow_folders: bool) -> None:
    """Build the tab inside the page being built. allow_folders: also for visitors from elsewhere."""
    with gr.Row():
        image = image_input(sources=["upload", "clipboard"], label="Photo", height=240, elem_id="compared")
        with gr.Column():
            names = [
                gr.Textbox(
                    label=f"{which} model", placeholder="OWNER/NAME on the Hub; empty: this page's model", max_lines=1
                )
                for which in ("First", "Second")
            ]
            button = gr.Button("Compare", variant="primary")
    with gr.Row():
        views = []
        for number in (1, 2):
            with gr.Column(min_width=300):
                views.append(attention_view(elem_id=f"model-{number}"))

    unchanged = [gr.skip(), gr.skip()]

    def compare(upload: Upload | None, first: str, second: str, visitor: gr.Request) -> list[Any]:
        if upload is None:
            gr.Warning("Upload a photo first.")
            return unchanged
        folders, found = allow_folders or is_local(visitor), []
        criteria = visits.stopping_criteria(visitor)
        for name in (first.strip(), second.strip()):
            try:
                model = captioner
                if name:
                    model = load_captioner(name, captioner.device, captioner.dtype, folders=folders)
                found.append(_view(model, upload.path, name, criteria))
            except (CheckpointError, ConfigError) as error:
                gr.Warning(html.escape(load_error(name, error, folders=folders)))
                return unchanged
            except ImageError as error:
                gr.Warning(html.escape(upload_error(error, upload)))
                return unchanged
            except GenerationStopped:
                gr.Warning(TOO_LONG)
                return unchanged
        return found

    # One at a time, for each may load a model.
    button.click(compare, [image, *names], views, concurrency_limit=1, api_visibility="private")


def _view(captioner: ImageCaptioner, path: str, name: str, stopping_criteria: StoppingCriteria) -> dict[str, Any]:
    session = start_session(captioner, path, stopping_criteria=stopping_criteria)
    label = name or "This page's model"
    return view_data(session.image, [(label, session.caption, [False] * len(session.caption.words))])


@lru_cache(2)
def load_captioner(
    name: str,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    folders: bool,
) -> ImageCaptioner:
    """The captioner of a public Hub repository or, with `folders`, of a folder; the last two stay in memory.

    Nothing of a repository stays on the disk, or visitors could fill it. Raises CheckpointError, ConfigError.
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
        captioner = ImageCaptioner.from_pretrained(folder, device=device, dtype=dtype)
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
