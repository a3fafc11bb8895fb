"""The component that shows captions word by word, and the image lit where the model looked."""

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from hf_captioner import Caption

HERE = Path(__file__).parent


def attention_view(**kwargs: Any) -> gr.HTML:
    """The component; its value is what `view_data` returns.

    Events: `word` when a word is selected or deselected, `cover` when a stroke of the brush ends, `hide` (place) to
    cover what a word looked at. `newest` gives the first two their place ([caption, word], or null) and mask, row by
    row.

    No subclass: Gradio would write a file beside this one for it.
    """
    template, style, script = (
        (HERE / f"attention_view.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return gr.HTML(html_template=template, css_template=style, js_on_load=script, apply_default_css=False, **kwargs)


def newest(name: str) -> str:
    """JavaScript for an event: in place of its first input the newest `place` or `covered` of the view #attention_view.

    With `always_last`, Gradio runs a handler again with the data of an earlier event.
    """
    value = f"document.querySelector('#attention_view .attention-view').dataset.{name}"
    return f"(_, ...rest) => [JSON.parse({value}), ...rest]"


def view_data(
    image: bytes,
    captions: Sequence[tuple[str, Caption, Sequence[bool]]],
    covered: np.ndarray | None = None,
    cover_colour: Sequence[int] = (127, 127, 127),
) -> dict[str, Any]:
    """The value of `attention_view`.

    image: a JPEG file. captions: a label, the caption, and for each of its words whether it is new.
    covered: (n, n) bool, the cells painted over in cover_colour, RGB; None where the image cannot be covered.
    """
    return {
        "run": time.time_ns(),  # Gradio does not pass on a value that equals the one before
        "image": f"data:image/jpeg;base64,{base64.b64encode(image).decode()}",
        "captions": [
            {
                "label": label,
                "text": caption.text,
                "words": [
                    {**word.to_dict(attention=True), "changed": changed}
                    for word, changed in zip(caption.words, changes, strict=True)
                ],
            }
            for label, caption, changes in captions
        ],
        "covered": [] if covered is None else covered.astype(int).flatten().tolist(),
        "coverColour": list(cover_colour),
    }
