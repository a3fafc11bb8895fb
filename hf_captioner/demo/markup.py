"""The page's markup, with what it says of its own captioner; everything that comes from a checkpoint is escaped."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_captioner.demo.card_view import card_html
from hf_captioner.demo.limits import MAX_FILE_BYTES, MAX_FILES
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Evaluation

BROWSER = Path(__file__).parent / "browser"
LOW_CONFIDENCE = 0.3
"""Below this confidence a caption comes with a warning."""
EXPLANATION = "Bright areas show where the model looked while choosing the word: a hint at the evidence, not proof."
HIDDEN_PARTS = ("the fifth it looked at most is covered", "a random fifth is covered")
"""What is said of the first two of OCCLUDED_REGIONS."""


def page_html(evaluation: Evaluation, about: str, setup: Mapping[str, Any]) -> str:
    """The whole page, as the JavaScript in `browser/` finds it. about: the card, in Markdown. setup: see types.js."""
    parts = {
        "stage.html": _read("stage.html"),
        "explanation": explanation_html(evaluation),
        "about": f'<div class="model-card">{card_html(about)}</div>{_read("use_it_from.html")}',
        "setup": html.escape(json.dumps(setup)),
    }
    page = _read("page.html")
    for name, part in parts.items():
        page = page.replace(f"<!-- {name} -->", part)
    return page


def page_setup(examples: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """What the JavaScript knows of the server. name: the captioner's, for a visitor."""
    return {
        "model": name,
        "examples": list(examples),
        "low_confidence": LOW_CONFIDENCE,
        "max_files": MAX_FILES,
        "max_file_bytes": MAX_FILE_BYTES,
    }


def explanation_html(evaluation: Evaluation) -> str:
    """The cards "What the light means" and "What it knows"; nothing is said of what was not measured."""
    light = f"<p>{EXPLANATION}</p>"
    occlusion = evaluation.occlusion
    if occlusion is not None:
        most, random = (occlusion.occluded[region] for region in OCCLUDED_REGIONS[:2])
        shares = zip(("nothing is covered", *HIDDEN_PARTS), (occlusion.baseline, most, random), strict=True)
        photos = f"{occlusion.images:,} photo{'s' * (occlusion.images != 1)}"
        light += f"<p>Tested on {photos}: a word's probability when</p><ul class='bars'>"
        light += "".join(map(_bar, *zip(*shares, strict=True))) + "</ul>"
    cards = [("What the light means", light)]
    if evaluation.limits:
        cards.append(("What it knows", "".join(f"<p>{html.escape(each)}</p>" for each in evaluation.limits[:1])))
    return "".join(f"<section class='card'><h2>{title}</h2>{content}</section>" for title, content in cards)


def _bar(label: str, share: float) -> str:
    width = f"{100 * share:.0f}"
    return f"<li><span>{label}</span><span class='bar' style='--share: {width}%'></span><strong>{width} %</strong></li>"


def _read(name: str) -> str:
    return (BROWSER / name).read_text(encoding="utf-8")
