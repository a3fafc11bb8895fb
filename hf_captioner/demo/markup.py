"""The page's markup, with what it says of its own captioner; everything that comes from a checkpoint is escaped."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_captioner import ImageCaptioner
from hf_captioner.demo.card_view import card_html, without_header
from hf_captioner.demo.limits import MAX_FILE_BYTES, MAX_FILES
from hf_captioner.hub.card import PLACEHOLDER_REPO, render_card
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Evaluation

BROWSER = Path(__file__).parent / "browser"
STYLES = ("page.css", "stage.css")
EXAMPLES = {
    "camera": "camera.jpg",
    "cat": "chelsea.jpg",
    "coffee": "coffee.jpg",
    "flower": "flower.jpg",
    "rocket": "rocket.jpg",
}
"""Each example in the page's address -> its file, in their order on the page."""
OUTSIDE = "rocket"
"""The example that is outside of what the bundled captioner knows."""
LOW_CONFIDENCE = 0.3
"""Below this confidence a caption comes with a warning."""
EXPLANATION = "Bright areas show where the model looked while choosing the word: a hint at the evidence, not proof."
HIDDEN_PARTS = ("the fifth it looked at most is covered", "a random fifth is covered")
"""What is said of the first two of OCCLUDED_REGIONS."""


@dataclass(frozen=True)
class Host:
    """What the page says of where its model runs, as markup."""

    photos: str
    """Where a visitor's photo goes."""
    frames: str
    """Where a frame of the camera goes."""
    loading: str
    """The file that shows how far the model is loaded, or none."""
    use_it: str
    """The file that says how to use it from elsewhere."""


SERVER = Host(
    "A photo of yours is sent to this page's server to be captioned, and not kept there. It has no link, so nobody "
    "else sees it.",
    "Each frame goes to this page's server, is captioned, and is not kept.",
    "",
    "use_it_from.html",
)
DEVICE = Host(
    "Your photos stay on this device: they are captioned in this browser, and sent nowhere.",
    "Each frame is captioned on this device, and is not kept.",
    "device/loading.html",
    "device/about.html",
)


def page_html(evaluation: Evaluation, about: str, setup: Mapping[str, Any], host: Host = SERVER) -> str:
    """The whole page, as the JavaScript in `browser/` finds it. about: the card, in Markdown. setup: see types.js."""
    parts = {
        "stage.html": _read("stage.html"),
        "loading": _read(host.loading) if host.loading else "",
        "photos": host.photos,
        "frames": host.frames,
        "explanation": explanation_html(evaluation),
        "about": f'<div class="model-card">{card_html(about)}</div>{_read(host.use_it)}',
        "setup": html.escape(json.dumps(setup)),
    }
    page = _read("page.html")
    for name, part in parts.items():
        page = page.replace(f"<!-- {name} -->", part)
    return page


def page_setup(model: str | None) -> dict[str, Any]:
    """What the JavaScript knows of the page. model: what the captioner was loaded from, None for the bundled one."""
    examples = [
        {"key": key, "label": key.capitalize(), "outside": model is None and key == OUTSIDE} for key in EXAMPLES
    ]
    return {
        "model": model_name(model),
        "examples": examples,
        "low_confidence": LOW_CONFIDENCE,
        "max_files": MAX_FILES,
        "max_file_bytes": MAX_FILE_BYTES,
    }


def model_name(model: str | None) -> str:
    """What a visitor is told of where the captioner is from: of a folder only the last part, for the others are its
    owner's business."""
    if model is None:
        return "This page's captioner"
    return Path(model).resolve().name if Path(model).is_dir() else model


def about(captioner: ImageCaptioner, model: str | None = None) -> str:
    """The model card without its YAML header, under the model's name."""
    title = model_name(model)
    argument = "" if model is None else f'"{title}"'
    card = captioner.card or render_card(captioner.description, license_text=captioner.weights_license)
    return without_header(card).replace(f'"{PLACEHOLDER_REPO}"', argument).replace(PLACEHOLDER_REPO, title)


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
