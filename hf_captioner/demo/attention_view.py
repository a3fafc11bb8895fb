"""The part of the page that shows captions word by word, and the photograph lit where the model looked."""

import base64
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from hf_captioner import Caption

HERE = Path(__file__).parent


def attention_view(**given: Any) -> gr.HTML:
    """The component; its value is what `view_data` makes. Events: `word` (place: [caption, word]) for a chosen word,
    `hide` (place) to cover what it looked at, `cover` (covered: the cells, row by row) when the brush is lifted.

    No subclass: Gradio would write a file beside this one for it.
    """
    template, style, script = (
        (HERE / f"attention_view.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return gr.HTML(html_template=template, css_template=style, js_on_load=script, apply_default_css=False, **given)


def view_data(
    photograph: bytes,
    captions: Sequence[tuple[str, Caption, Sequence[bool]]],
    covered: np.ndarray | None = None,
    paint: Sequence[int] = (127, 127, 127),
) -> dict[str, Any]:
    """The value of `attention_view`: a JPEG; captions with a label each, and which of their words are new.

    covered: (n, n) cells painted over in the colour paint, RGB; None where the photograph cannot be covered.
    """
    return {
        "run": time.time_ns(),  # Gradio does not tell the page of a value that equals the one before
        "photograph": f"data:image/jpeg;base64,{base64.b64encode(photograph).decode()}",
        "captions": [
            {
                "label": label,
                "text": caption.text,
                "words": [
                    {**word.to_dict(attention=True), "changed": changed}
                    for word, changed in zip(caption.words, marks, strict=True)
                ],
            }
            for label, caption, marks in captions
        ],
        "covered": [] if covered is None else covered.astype(int).flatten().tolist(),
        "paint": list(paint),
    }
