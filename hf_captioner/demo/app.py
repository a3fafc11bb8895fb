"""The web page: a photograph, its caption, and for each word where the model looked."""

import atexit
import contextlib
import html
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Set
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # both are read when gradio is imported
os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="hf-captioner-")

import gradio as gr

from hf_captioner import CheckpointError, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.attention_view import attention_view, view_data
from hf_captioner.demo.session import start_session
from hf_captioner.demo.tab_batch import MOST, batch_tab, too_many
from hf_captioner.demo.tab_single import single_tab
from hf_captioner.demo.uploads import Upload, cannot_read, picture, pictures
from hf_captioner.hub.card import render_card
from hf_captioner.hub.evaluation import OCCLUDED_REGIONS, Evaluation
from hf_captioner.hub.packaged import data_path

atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)  # visitors' photographs
HERE = Path(__file__).parent
EXAMPLES = ("camera", "astronaut", "chelsea", "coffee", "rocket")
"""The example images, in their order on the page."""
LIT = "Lit places are where the model looked while it chose the word: a hint at what the word rests on, no proof."
PACE = 0.1
"""Seconds between two pictures of the camera; while one is captioned only the newest waits."""
LIVE = 4
"""Visitors whose cameras are captioned at once."""
TURN = 20
"""Seconds of a visitor's camera after which it is the next one's turn, if another waits."""
CLEANUP_INTERVAL, UPLOAD_TTL = 60, 600
"""Seconds between two looks for uploads older than so many seconds; those are deleted."""
WAITING = 400
"""Events that wait for their turn: a hundred visitors at once, each with a few touches of the page."""
SESSIONS = 1000
"""Visitors whose state is kept; Gradio takes each call of an endpoint for a new one, and holds 130 kB for it."""


def build_page(captioner: ImageCaptioner, examples: Path | None = None) -> gr.Blocks:
    """The page around a captioner; starts nothing.

    examples: the folder of EXAMPLES; None is the one that comes with the package.
    """
    folder = examples or data_path("space") / "examples"
    paths = [str(folder / f"{name}.jpg") for name in EXAMPLES]
    with gr.Blocks(title="What did it look at?", analytics_enabled=False) as page:
        gr.Markdown("# What did it look at?\nA caption for your photograph, and where the model looked for every word.")
        with gr.Tab("Photograph"):
            photograph = single_tab(captioner, paths, f"{LIT} {measured_summary(captioner.evaluation)}")
        with gr.Tab("Many at once"):
            batch_tab(captioner)
        with gr.Tab("Live"):
            _live(captioner)
        with gr.Tab("Compare"):
            _compare(captioner)
        with gr.Tab("About"):
            gr.Markdown(about(captioner), elem_id="about")
        _endpoints(captioner, photograph)
    return page


def _live(captioner: ImageCaptioner) -> None:
    times = gr.State(())
    small = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}}}  # the model reads no more
    with gr.Row():
        camera = gr.Image(
            sources=["webcam"],
            streaming=True,
            label="Camera",
            buttons=[],
            type="numpy",
            height=420,
            min_width=280,
            webcam_options=gr.WebcamOptions(mirror=False, constraints=small),
        )
        with gr.Column(min_width=280):
            said = gr.Textbox(label="It says", interactive=False, lines=3, elem_id="live")
            rate = gr.Markdown("Press record, and it says what the camera sees, again and again.")

    def watch(frame: Any, times: tuple[float, ...]) -> tuple[str, tuple[float, ...], str]:
        caption = captioner.caption(frame, num_return_sequences=1)
        times = (*times[-9:], time.monotonic())
        pace = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
        return caption.text, times, f"{pace:.1f} captions a second"

    camera.stream(
        watch,
        [camera, times],
        [said, times, rate],
        stream_every=PACE,
        concurrency_limit=LIVE,
        time_limit=TURN,
        show_progress="hidden",
        api_visibility="private",
    )


def _compare(captioner: ImageCaptioner) -> None:
    with gr.Row():
        photograph = picture(sources=["upload", "clipboard"], label="Photograph", height=240, elem_id="compared")
        with gr.Column():
            names = [
                gr.Textbox(label=f"{which} model", placeholder="this page's own; or a Hub id, or a folder", max_lines=1)
                for which in ("First", "Second")
            ]
            go = gr.Button("Compare", variant="primary")
    with gr.Row():
        sides = []
        for side in (1, 2):
            with gr.Column(min_width=300):
                sides.append(attention_view(elem_id=f"side-{side}"))

    def compare(upload: Upload | None, *names: str) -> list[Any]:
        if upload is None:
            gr.Warning("There is no photograph; give it one first.")
            return [{}, {}]
        try:
            found = [_spoken(captioner, upload.path, name.strip()) for name in names]
        except (CheckpointError, ConfigError) as error:
            gr.Warning(html.escape(str(error)))
        except ImageError as error:
            gr.Warning(html.escape(cannot_read(error, upload)))
        else:
            return found
        return [{}, {}]

    go.click(compare, [photograph, *names], sides, api_visibility="private")


def _spoken(captioner: ImageCaptioner, path: str, name: str) -> dict[str, Any]:
    session = start_session(loaded(name) if name else captioner, path)
    return view_data(
        session.photograph, [(name or "this page's own", session.plain, [False] * len(session.plain.words))]
    )


@lru_cache(2)
def loaded(name: str) -> ImageCaptioner:
    """The captioner of a folder or Hub id; the last two stay in memory. Raises CheckpointError.

    On a Space its folders, and what its owner alone may read on the Hub, are no business of a visitor's.
    """
    public = "SPACE_ID" in os.environ
    try:
        here = Path(name).exists()
    except OSError as error:  # a name may be too long to ask for
        raise CheckpointError(f"{name}: {error.strerror}; expected a folder, or a Hub id owner/name.") from error
    if public and here:
        raise CheckpointError(f"{name} is no Hub id; expected the owner/name of a captioner on the Hub.")
    return ImageCaptioner.from_pretrained(name, token=False if public else None)


def about(captioner: ImageCaptioner) -> str:
    """The model card without the header that is meant for machines."""
    card = captioner.card or render_card(captioner.description, license_text=captioner.weights_license)
    return card.split("---\n", 2)[2]


def _endpoints(captioner: ImageCaptioner, photograph: gr.Image) -> None:
    def caption(photograph: Upload | None) -> dict[str, Any]:
        """Caption a photograph: the sentence, and for each word its probability, alternatives and attention.

        Args:
            photograph: A picture's file.
        """
        return _caption(captioner, photograph)

    def continue_caption(photograph: Upload | None, prefix: str) -> dict[str, Any]:
        """Caption a photograph with a sentence that begins with the words given.

        Args:
            photograph: A picture's file.
            prefix: The caption's first words, such as "two dogs".
        """
        return _caption(captioner, photograph, prefix=prefix)

    def caption_batch(photographs: list[Upload]) -> list[dict[str, Any]]:
        """Caption several photographs, in order; one that cannot be read gets an `error` in its place.

        Args:
            photographs: The pictures' files.
        """
        if not photographs:
            raise gr.Error("There are no photographs; expected a list of pictures' files.", print_exception=False)
        if len(photographs) > MOST:
            raise gr.Error(too_many(photographs), print_exception=False)
        found: Any = captioner.stream([upload.path for upload in photographs], num_return_sequences=1)
        return [
            {"error": cannot_read(result, upload)} if isinstance(result, ImageError) else result.to_dict()
            for upload, result in zip(photographs, found, strict=True)
        ]

    # Events of input boxes and not gr.api: Gradio then takes uploads (and addresses), no path of the server's.
    answer = gr.JSON(visible=False)
    begin = gr.Textbox(visible=False)
    files = pictures(visible=False)
    gr.Button(visible=False).click(caption, photograph, answer, api_name="caption")
    gr.Button(visible=False).click(continue_caption, [photograph, begin], answer, api_name="continue")
    gr.Button(visible=False).click(caption_batch, files, answer, api_name="caption_batch")


def _caption(captioner: ImageCaptioner, photograph: Upload | None, **search: Any) -> dict[str, Any]:
    if photograph is None:
        raise gr.Error("There is no photograph; expected a picture's file.", print_exception=False)
    try:
        found: dict[str, Any] = captioner.caption(photograph.path, num_return_sequences=1, **search).to_dict(
            attention=True
        )
        return found
    except ImageError as error:
        raise gr.Error(cannot_read(error, photograph), print_exception=False) from error
    except ConfigError as error:
        raise gr.Error(str(error), print_exception=False) from error


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


def held() -> list[Path]:
    """What lies where Gradio keeps uploads, folders too, each after what is in it."""
    found = os.walk(os.environ["GRADIO_TEMP_DIR"], topdown=False)
    return [Path(folder, name) for folder, folders, files in found for name in (*files, *folders)]


def sweep(page: gr.Blocks, own: Set[Path]) -> None:
    """Delete what visitors left more than UPLOAD_TTL seconds ago; `own` is the page's and stays.

    `gr.Blocks(delete_cache=...)` deletes the page's own too, and ends for good when an upload arrives meanwhile.
    """
    gone = set()
    for path in held():
        # An upload that arrives is renamed, and a folder may have been filled again: neither stops the others.
        with contextlib.suppress(OSError):
            if path not in own and time.time() - path.lstat().st_ctime > UPLOAD_TTL:
                path.rmdir() if path.is_dir() else path.unlink()
                gone.add(str(path))
    for names in page.temp_file_sets:  # they would fill the memory
        names.difference_update(gone)


def _sweeping(page: gr.Blocks, own: Set[Path]) -> None:
    while True:
        time.sleep(CLEANUP_INTERVAL)
        sweep(page, own)


def serve(
    model: str | None = None,
    port: int | None = None,
    *,
    device: str = "auto",
    dtype: str = "auto",
    examples: Path | None = None,
    open_browser: bool = False,
) -> None:
    """Load the captioner once and serve the page until interrupted or told to end. Raises CheckpointError, and
    ConfigError for a device or dtype."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    page = build_page(ImageCaptioner.from_pretrained(model, device=device, dtype=dtype), examples)
    page.space_id = None  # else the page asks the Hub and a font server for a header
    page.queue(max_size=WAITING, default_concurrency_limit=2)
    threading.Thread(target=_sweeping, args=[page, frozenset(held())], daemon=True).start()
    page.launch(
        server_port=port,
        inbrowser=open_browser,
        theme=theme(),
        css_paths=HERE / "page.css",
        footer_links=[],
        run_history=False,
        max_file_size="20mb",
        state_session_capacity=SESSIONS,
        show_error=True,
        mcp_server=True,
    )
