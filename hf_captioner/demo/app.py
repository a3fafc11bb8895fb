"""The web page: an image, its caption, and for each word where the model looked."""

import signal
import sys
from pathlib import Path

import gradio as gr
import torch
from starlette.middleware import Middleware

from hf_captioner import ImageCaptioner
from hf_captioner.demo.endpoints import add_endpoints
from hf_captioner.demo.limits import MAX_BODY_BYTES, MAX_FILE_BYTES, BodyLimit, check_search
from hf_captioner.demo.markup import BROWSER, EXAMPLES, STYLES, about, page_html, page_setup
from hf_captioner.demo.routes import page_routes
from hf_captioner.demo.uploads import start_cleanup
from hf_captioner.demo.visits import Visits
from hf_captioner.hub.packaged import data_path

START = """
const modules = ["page", "server"].map((name) => import(new URL(`page/${name}.js`, document.baseURI)));
Promise.all(modules).then(([page, server]) => page.start(element, server.askServer()));
"""
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
    visits = Visits()
    with gr.Blocks(title="What did it look at?", analytics_enabled=False) as page:
        content = page_html(captioner.evaluation, about(captioner, model), page_setup(model))
        style = "".join((BROWSER / name).read_text(encoding="utf-8") for name in STYLES)
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
