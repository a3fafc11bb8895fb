"""The web page: an image, its caption, and for each word where the model looked."""

import signal
import sys
from pathlib import Path

import gradio as gr
import torch
from starlette.middleware import Middleware

from hf_captioner import ImageCaptioner
from hf_captioner.demo.card_view import card_html, without_header
from hf_captioner.demo.endpoints import add_endpoints
from hf_captioner.demo.limits import MAX_BODY_BYTES, BodyLimit, check_search
from hf_captioner.demo.session import percent
from hf_captioner.demo.tab_batch import batch_tab
from hf_captioner.demo.tab_camera import camera_tab
from hf_captioner.demo.tab_compare import compare_tab
from hf_captioner.demo.tab_single import single_tab
from hf_captioner.demo.uploads import start_cleanup
from hf_captioner.demo.visits import Visits
from hf_captioner.hub.card import PLACEHOLDER_REPO, render_card
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Evaluation
from hf_captioner.hub.packaged import data_path

HERE = Path(__file__).parent
EXAMPLES = {
    "Camera": "camera.jpg",
    "Cat": "chelsea.jpg",
    "Coffee": "coffee.jpg",
    "Rocket": "rocket.jpg",
}
"""Label of each example image -> its file, in their order on the page."""
PROMISE = "See which parts of a photo an AI looked at for every word of its caption."
EXPLANATION = "Bright areas show where the model looked while choosing the word: a hint at the evidence, not proof."
MAX_WAITING = 400
"""Events that wait for their turn: a hundred visitors at once, each with a few touches of the page."""
MAX_SESSIONS = 1000
"""Visitors whose state is kept; Gradio takes each call of an endpoint for a new one, and holds 130 kB for it."""
TRANSLATIONS = gr.I18n(en={"common.upload": "Upload more"})
"""Gradio 6.31 names a button of its file box so, and has no text for it."""


def build_page(
    captioner: ImageCaptioner, examples: Path | None = None, *, model: str | None = None, allow_folders: bool = False
) -> gr.Blocks:
    """The page around a captioner; starts nothing.

    examples: the folder of EXAMPLES; None is the one that comes with the package. model: what the captioner was loaded
    from, as for `ImageCaptioner.from_pretrained`. allow_folders: as for `serve`. Raises ConfigError for a captioner
    whose own search is larger than the page takes.
    """
    check_search(model or "The bundled captioner", captioner.generation_config)
    folder = examples or data_path("space") / "examples"
    paths = {label: str(folder / name) for label, name in EXAMPLES.items()}
    visits = Visits()
    with gr.Blocks(title="What did it look at?", analytics_enabled=False) as page:
        gr.Markdown(f"# What did it look at?\n{PROMISE}")
        with gr.Tab("Caption"):
            image = single_tab(captioner, visits, paths, f"{EXPLANATION} {measured_summary(captioner.evaluation)}")
        with gr.Tab("Batch"):
            batch_tab(captioner, visits)
        with gr.Tab("Camera"):
            camera_tab(captioner, visits)
        with gr.Tab("Compare"):
            compare_tab(captioner, visits, allow_folders=allow_folders)
        with gr.Tab("About"):
            gr.HTML(card_html(about(captioner, model)), elem_id="about", elem_classes="prose")
        add_endpoints(captioner, visits, image)
        page.unload(visits.leave)
    return page


def about(captioner: ImageCaptioner, model: str | None = None) -> str:
    """The model card without its YAML header, under the model's name: of a folder only the last part, for the others
    are the server's own business."""
    title, argument = "This page's captioner", ""
    if model is not None:
        title = Path(model).resolve().name if Path(model).is_dir() else model
        argument = f'"{title}"'
    card = captioner.card or render_card(captioner.description, license_text=captioner.weights_license)
    return without_header(card).replace(f'"{PLACEHOLDER_REPO}"', argument).replace(PLACEHOLDER_REPO, title)


def measured_summary(evaluation: Evaluation) -> str:
    """What was measured of this captioner, in plain sentences; nothing is said of what was not."""
    occlusion, limits = evaluation.occlusion, " ".join(evaluation.limits[:1])
    if occlusion is None:
        return limits
    most, random = (percent(occlusion.occluded[region]) for region in OCCLUDED_REGIONS[:2])
    photos = f"{occlusion.images:,} photo{'s' * (occlusion.images != 1)}"
    return (
        f"Tested on {photos}: when the fifth that a word looked at most is covered, the word's "
        f"probability falls from {percent(occlusion.baseline)} to {most}; when a random fifth is, to {random}. {limits}"
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
    allow_folders: bool = False,
) -> None:
    """Load the captioner once and serve the page until interrupted or terminated.

    model, device, dtype: as `ImageCaptioner.from_pretrained` takes them; other models are compared on the same device
    and in the same dtype. port: None is the first free one from 7860 on. examples: as for `build_page`.
    allow_folders: every visitor may compare captioners in folders of this machine; else only one who sits at it.
    Raises CheckpointError and, for a device or dtype, ConfigError.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    captioner = ImageCaptioner.from_pretrained(model, device=device, dtype=dtype)
    page = build_page(captioner, examples, model=model, allow_folders=allow_folders)
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
        app_kwargs={"middleware": [Middleware(BodyLimit, max_body_size=MAX_BODY_BYTES)]},
        i18n=TRANSLATIONS,
    )
