"""Files that visitors upload: the components that take them, what is said of a bad one, and their deletion."""

import contextlib
import os
import threading
import time
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from gradio.utils import get_upload_folder

from hf_captioner import ImageError
from hf_captioner.demo.photo import image_error

CLEANUP_INTERVAL, UPLOAD_TTL = 60, 600
"""Seconds between two searches for uploads older than this many seconds; those are deleted."""


class Upload(NamedTuple):
    path: str
    """Where the server keeps the file for a while."""
    name: str
    """The visitor's name for it; in the path Gradio leaves only harmless characters of it."""


def image_input(**kwargs: Any) -> gr.Image:
    """An image box whose value is an Upload or None; Gradio itself does not decode the file."""
    box = gr.Image(buttons=[], **kwargs)
    box.preprocess = _upload  # type: ignore[method-assign, assignment]
    return box


def files_input(**kwargs: Any) -> gr.File:
    """A box for several files whose value is a list of Uploads."""
    box = gr.File(file_count="multiple", **kwargs)
    box.preprocess = _uploads  # type: ignore[method-assign, assignment]
    return box


def _upload(file: Any) -> Any:
    if not file:
        return None
    # Gradio checks the paths only of files that carry its marker, which a caller may leave out.
    if not (file.path and Path(file.path).resolve().is_relative_to(Path(get_upload_folder()).resolve())):
        raise gr.Error("This file was not uploaded; upload it first.", print_exception=False)
    return Upload(file.path, file.orig_name or Path(file.path).name)


def _uploads(files: Any) -> Any:
    return [_upload(file) for file in files or ()]


def upload_error(error: ImageError, upload: Upload) -> str:
    """What is wrong with an upload, in a visitor's words and without the server's path."""
    if not Path(upload.path).exists():
        return f"This photo was deleted after {UPLOAD_TTL // 60} minutes. Upload it again."
    return image_error(error, upload.path)


def stored_files() -> list[Path]:
    """Everything in Gradio's upload folder, each folder after its content."""
    walked = os.walk(os.environ["GRADIO_TEMP_DIR"], topdown=False)
    return [Path(folder, name) for folder, folders, files in walked for name in (*files, *folders)]


def delete_expired(page: gr.Blocks, own: Set[Path]) -> None:
    """Delete uploads older than UPLOAD_TTL seconds; `own` are the page's own files, which stay.

    `gr.Blocks(delete_cache=...)` deletes the page's own files too, and stops for good when an upload arrives meanwhile.
    """
    deleted = set()
    for path in stored_files():
        # An arriving upload is renamed, and a folder may have been filled again: neither stops the others.
        with contextlib.suppress(OSError):
            if path not in own and time.time() - path.lstat().st_ctime > UPLOAD_TTL:
                path.rmdir() if path.is_dir() else path.unlink()
                deleted.add(str(path))
    for names in page.temp_file_sets:  # they would fill the memory
        names.difference_update(deleted)


def start_cleanup(page: gr.Blocks) -> None:
    """Delete expired uploads from now on, in a thread; what is stored already is the page's own."""
    threading.Thread(target=_clean_up, args=[page, frozenset(stored_files())], daemon=True).start()


def _clean_up(page: gr.Blocks, own: Set[Path]) -> None:
    while True:
        time.sleep(CLEANUP_INTERVAL)
        delete_expired(page, own)
