"""The web page: an image, its caption, and for each word where the model looked."""

import signal
import sys
from pathlib import Path

import gradio as gr
import torch
from starlette.middleware import Middleware

from hf_captioner import ImageCaptioner
from hf_captioner.demo.card_view import without_header
from hf_captioner.demo.endpoints import add_endpoints
from hf_captioner.demo.limits import MAX_BODY_BYTES, MAX_FILE_BYTES, BodyLimit, check_search
from hf_captioner.demo.markup import page_html, page_setup
from hf_captioner.demo.routes import BROWSER, page_routes
from hf_captioner.demo.uploads import start_cleanup
from hf_captioner.demo.visits import Visits
from hf_captioner.hub.card import PLACEHOLDER_REPO, render_card
from hf_captioner.hub.packaged import data_path

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
START = 'import(new URL("page/page.js", document.baseURI)).then((page) => page.start(element));'
MAX_WAITING = 400
"""Calls of endpoints that wait for their turn."""
MAX_SESSIONS = 1000
"""Callers whose state is kept; Gradio takes each call of an endpoint for a new one, and holds 130 kB for it."""


def build_page(captioner: ImageCaptioner, *, model: str | None = None) -> gr.Blocks:
    """The page around a captioner, without its routes; starts nothing.

    model: what the captioner was loaded from, as for `ImageCaptioner.from_pretrained`. Raises ConfigError for a
    captioner whose own search is larger than the page takes.
    """
    check_search(model or "The bundled captioner", captioner.generation_config)
    examples = [
        {"key": key, "label": key.capitalize(), "outside": model is None and key == OUTSIDE} for key in EXAMPLES
    ]
    setup = page_setup(examples, model_name(model))
    visits = Visits()
    with gr.Blocks(title="What did it look at?", analytics_enabled=False) as page:
        content = page_html(captioner.evaluation, about(captioner, model), setup)
        style = "".join((BROWSER / name).read_text(encoding="utf-8") for name in ("page.css", "stage.css"))
        gr.HTML(
            html_template=template(content),
            css_template=style,
            js_on_load=START,
            apply_default_css=False,
            container=False,
        )
        add_endpoints(captioner, visits)
        page.unload(visits.leave)
    return page


def template(content: str) -> str:
    """Markup as a template of Gradio's, which would run what stands in braces: those of a card are only text."""
    return content.replace("{", "&#123;").replace("`", "&#96;").replace("\\", "&#92;")


def model_name(model: str | None) -> str:
    """What a visitor is told of where the captioner is from: of a folder only the last part, for the others are the
    server's own business."""
    if model is None:
        return "This page's captioner"
    return Path(model).resolve().name if Path(model).is_dir() else model


def about(captioner: ImageCaptioner, model: str | None = None) -> str:
    """The model card without its YAML header, under the model's name."""
    title = model_name(model)
    argument = "" if model is None else f'"{title}"'
    card = captioner.card or render_card(captioner.description, license_text=captioner.weights_license)
    return without_header(card).replace(f'"{PLACEHOLDER_REPO}"', argument).replace(PLACEHOLDER_REPO, title)


def theme() -> gr.themes.Base:
    """Fonts that every machine has, so that none is fetched."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def serve(
    model: str | None = None,
    port: int | None = None,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    backend: str = "auto",
    examples: Path | None = None,
    open_browser: bool = False,
    allow_folders: bool = False,
) -> None:
    """Load the captioner once and serve the page until interrupted or terminated.

    model, device, dtype, backend: as `ImageCaptioner.from_pretrained` takes them, but with `auto` the captioner is also
    exported where it was not yet; other models are compared by PyTorch on the same device. port: None is the first free
    one from 7860 on. examples: the folder of EXAMPLES; None is the one that comes with the package. allow_folders:
    every visitor may compare captioners in folders of this machine; else only one who sits at it.
    Raises CheckpointError and, for a device or dtype, ConfigError.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    captioner = ImageCaptioner.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    if backend == dtype == "auto":
        captioner.take_quickest()
    page = build_page(captioner, model=model)
    page.space_id = None  # else the page asks the Hub and a font server for a header
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=2)
    folder = examples or data_path("space") / "examples"
    files = {key: folder / name for key, name in EXAMPLES.items()}
    start_cleanup(page)
    page.launch(
        server_port=port,
        inbrowser=open_browser,
        theme=theme(),
        css_paths=BROWSER / "colours.css",
        footer_links=[],
        run_history=False,
        max_file_size=MAX_FILE_BYTES,
        state_session_capacity=MAX_SESSIONS,
        show_error=True,
        mcp_server=True,
        app_kwargs={
            "routes": page_routes(captioner, files, allow_folders=allow_folders),
            "middleware": [Middleware(BodyLimit, max_body_size=MAX_BODY_BYTES)],
        },
    )
