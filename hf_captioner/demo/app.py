"""The web page: an image, its caption, and for each word where the model looked."""

import re
import signal
import sys
from pathlib import Path

import gradio as gr
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.demo.endpoints import add_endpoints
from hf_captioner.demo.tab_batch import batch_tab
from hf_captioner.demo.tab_camera import camera_tab
from hf_captioner.demo.tab_compare import compare_tab
from hf_captioner.demo.tab_single import single_tab
from hf_captioner.demo.uploads import start_cleanup
from hf_captioner.hub.card import render_card
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Evaluation
from hf_captioner.hub.packaged import data_path

HERE = Path(__file__).parent
EXAMPLES = {name.capitalize(): f"{name}.jpg" for name in ("camera", "astronaut", "chelsea", "coffee", "rocket")}
"""Label of each example image -> its file, in their order on the page."""
EXPLANATION = (
    "Lit places are where the model looked while it chose the word: a hint at what the word rests on, no proof."
)
MAX_WAITING = 400
"""Events that wait for their turn: a hundred visitors at once, each with a few touches of the page."""
MAX_SESSIONS = 1000
"""Visitors whose state is kept; Gradio takes each call of an endpoint for a new one, and holds 130 kB for it."""


def build_page(captioner: ImageCaptioner, examples: Path | None = None) -> gr.Blocks:
    """The page around a captioner; starts nothing.

    examples: the folder of EXAMPLES; None is the one that comes with the package.
    """
    folder = examples or data_path("space") / "examples"
    paths = {label: str(folder / name) for label, name in EXAMPLES.items()}
    with gr.Blocks(title="What did it look at?", analytics_enabled=False) as page:
        gr.Markdown("# What did it look at?\nA caption for your photograph, and where the model looked for every word.")
        with gr.Tab("Photograph"):
            image = single_tab(captioner, paths, f"{EXPLANATION} {measured_summary(captioner.evaluation)}")
        with gr.Tab("Many at once"):
            batch_tab(captioner)
        with gr.Tab("Live"):
            camera_tab(captioner)
        with gr.Tab("Compare"):
            compare_tab(captioner)
        with gr.Tab("About"):
            gr.Markdown(about(captioner), elem_id="about")
        add_endpoints(captioner, image)
    return page


def about(captioner: ImageCaptioner) -> str:
    """The model card without its YAML header."""
    card = captioner.card or render_card(captioner.description, license_text=captioner.weights_license)
    return re.sub(r"\A---\n.*?\n---\n", "", card, count=1, flags=re.DOTALL)


def measured_summary(evaluation: Evaluation) -> str:
    """What was measured of this captioner, in plain sentences; nothing is said of what was not."""
    occlusion, limits = evaluation.occlusion, " ".join(evaluation.limits[:1])
    if occlusion is None:
        return limits
    most, random = (f"{100 * occlusion.occluded[region]:.0f} %" for region in OCCLUDED_REGIONS[:2])
    return (
        f"Tested on {occlusion.images:,} photos: with the most attended fifth occluded, a word's probability falls "
        f"from {100 * occlusion.baseline:.0f} % to {most}; with a random fifth, to {random}. {limits}"
    )


def theme() -> gr.themes.Base:
    """Fonts that every machine has, so that none is fetched; and small print dark enough to read."""
    soft = gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return soft.set(
        body_text_color_subdued="*neutral_600",
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        checkbox_label_background_fill_selected="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
    )


def serve(
    model: str | None = None,
    port: int | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    examples: Path | None = None,
    open_browser: bool = False,
) -> None:
    """Load the captioner once and serve the page until interrupted or terminated.

    model, device, dtype: as `ImageCaptioner.from_pretrained` takes them; other models are compared on the same device
    and in the same dtype. port: None is the first free one from 7860 on. examples: as for `build_page`.
    Raises CheckpointError and, for a device or dtype, ConfigError.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    page = build_page(ImageCaptioner.from_pretrained(model, device=device, dtype=dtype), examples)
    page.space_id = None  # else the page asks the Hub and a font server for a header
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=2)
    start_cleanup(page)
    page.launch(
        server_port=port,
        inbrowser=open_browser,
        theme=theme(),
        css_paths=HERE / "page.css",
        footer_links=[],
        run_history=False,
        max_file_size="20mb",
        state_session_capacity=MAX_SESSIONS,
        show_error=True,
        mcp_server=True,
    )
