"""The tab that compares two models on one image."""

import html
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from hf_captioner import CheckpointError, ImageCaptioner, ImageError
from hf_captioner.demo.attention_view import attention_view, view_data
from hf_captioner.demo.session import start_session
from hf_captioner.demo.uploads import Upload, image_input, upload_error


def compare_tab(captioner: ImageCaptioner) -> None:
    """Build the tab inside the page being built."""
    with gr.Row():
        image = image_input(sources=["upload", "clipboard"], label="Photo", height=240, elem_id="compared")
        with gr.Column():
            names = [
                gr.Textbox(label=f"{which} model", placeholder="empty: this page's model", max_lines=1)
                for which in ("First", "Second")
            ]
            button = gr.Button("Compare", variant="primary")
    with gr.Row():
        views = []
        for number in (1, 2):
            with gr.Column(min_width=300):
                views.append(attention_view(elem_id=f"model-{number}"))

    unchanged = [gr.skip(), gr.skip()]

    def compare(upload: Upload | None, *names: str) -> list[Any]:
        if upload is None:
            gr.Warning("Upload a photo first.")
            return unchanged
        try:
            return [_view(captioner, upload.path, name.strip()) for name in names]
        except CheckpointError as error:
            gr.Warning(html.escape(load_error(error)))
        except ImageError as error:
            gr.Warning(html.escape(upload_error(error, upload)))
        return unchanged

    button.click(compare, [image, *names], views, api_visibility="private")


def _view(captioner: ImageCaptioner, path: str, name: str) -> dict[str, Any]:
    model = load_captioner(name, captioner.device, captioner.dtype) if name else captioner
    session = start_session(model, path)
    label = name or "This page's model"
    return view_data(session.image, [(label, session.caption, [False] * len(session.caption.words))])


@lru_cache(2)
def load_captioner(name: str, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> ImageCaptioner:
    """The captioner of a folder or Hub id; the last two stay in memory. Raises CheckpointError.

    On a Space visitors may load only public Hub models: no local folders, none of the owner's private repositories.
    """
    on_space = "SPACE_ID" in os.environ
    try:
        is_path = Path(name).exists()
    except OSError as error:  # the name may be too long
        raise CheckpointError(f"{name}: {error.strerror}; expected a folder, or a Hub id owner/name.") from error
    if on_space and is_path:
        raise CheckpointError(f"{name} is no Hub id; expected the owner/name of a captioner on the Hub.")
    return ImageCaptioner.from_pretrained(name, token=False if on_space else None, device=device, dtype=dtype)


def load_error(error: CheckpointError) -> str:
    """Why a model was not loaded, without the settings of a command line that a visitor does not see."""
    match error.__cause__:
        case LocalEntryNotFoundError(__cause__=HfHubHTTPError()):
            return str(error)
        case LocalEntryNotFoundError():
            name = str(error).partition(":")[0]
            return f"{name} is not on this machine, and the Hugging Face Hub was not reached. Check the network."
        case _:
            return str(error)
