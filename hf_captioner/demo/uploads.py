"""What visitors hand in: pictures as files, read by nobody but `hf_captioner`."""

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder

from hf_captioner import ImageError


class Upload(NamedTuple):
    path: str
    """Where the server keeps it for a while."""
    name: str
    """What the visitor calls it; Gradio's path has only the harmless letters of it."""


def picture(**given: Any) -> gr.Image:
    """An image box whose value is an Upload or None, and not Gradio's reading of it."""
    box = gr.Image(buttons=[], **given)
    box.preprocess = _one  # type: ignore[method-assign, assignment]
    return box


def pictures(**given: Any) -> gr.File:
    """A box for several files whose value is a list of Uploads."""
    box = gr.File(file_count="multiple", **given)
    box.preprocess = _all  # type: ignore[method-assign, assignment]
    return box


def _one(file: Any) -> Any:
    if not file:
        return None
    # Gradio looks only at the paths of files that bear its mark, which a visitor may leave out.
    if not (file.path and Path(file.path).resolve().is_relative_to(Path(get_upload_folder()).resolve())):
        raise gr.Error("This picture was not uploaded; upload it first.", print_exception=False)
    return Upload(file.path, file.orig_name or Path(file.path).name)


def _all(files: Any) -> Any:
    return [_one(file) for file in files or ()]


def cannot_read(error: ImageError, upload: Upload) -> str:
    """What is wrong with a visitor's picture; where the server keeps it is nobody's business."""
    return f"This picture cannot be read: {str(error).removeprefix(f'{upload.path}: ')}"
