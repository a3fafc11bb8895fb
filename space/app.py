"""The web page: a photograph, its caption, and for each word where the model looked."""

import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
from PIL import Image

from hf_captioner import Caption, ImageCaptioner, ImageError
from hf_captioner.config import FIFTHS, CaptionerConfig
from hf_captioner.images import open_image

HERE = Path(__file__).parent
EXAMPLES = [str(HERE / "examples" / f"{name}.jpg") for name in ("camera", "astronaut", "chelsea", "coffee", "rocket")]
CSS = "#maps .grid-container { grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)); }"
SHOWN = 800
"""Longest side of the heatmaps on the page, in pixels."""
LIT = "Lit places are where the model looked while it chose the word: a hint at what the word rests on, no proof."
SEEN = (
    "The model has seen photographs of people and dogs, mostly outdoors; of anything else it talks nonsense, fluently."
)


def build_page(captioner: ImageCaptioner) -> gr.Blocks:
    """The page around a captioner; starts nothing."""

    def look(photograph: str | None) -> tuple[str, list[tuple[Image.Image, str]]]:
        """Caption a photograph; one picture a word shows where the model looked."""
        if photograph is None:
            return "", []
        try:
            caption, picture = _caption(captioner, photograph), open_image(photograph)
        except gr.Error as error:
            gr.Warning(error.message)  # and no caption of the photograph before is left standing
            return "", []
        picture.thumbnail((SHOWN, SHOWN))
        maps = [(caption.overlay(picture, index), word.text) for index, word in enumerate(caption.words)]
        return caption.text, maps

    def describe(photograph: str | None) -> dict[str, object]:
        """Caption a photograph: the sentence, and for each word its probability, alternatives and attention."""
        if photograph is None:
            raise gr.Error("There is no photograph; expected a picture's file.", print_exception=False)
        return _caption(captioner, photograph).to_dict(attention=True)

    with gr.Blocks(title="What did it look at?", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown("# What did it look at?\nA caption for your photograph, and where the model looked for every word.")
        with gr.Row():
            photograph = gr.Image(sources=["upload", "webcam", "clipboard"], label="Photograph", buttons=[], height=380)
            # The file itself, not Gradio's reading of it: one function of the package opens every picture.
            photograph.preprocess = lambda payload: payload and payload.path
            with gr.Column():
                sentence = gr.Textbox(label="Caption", interactive=False, lines=2, elem_id="caption")
                gr.Markdown("### Where it looked, word by word")
                maps = gr.Gallery(
                    label="Where it looked", show_label=False, buttons=[], elem_id="maps", object_fit="contain"
                )
        gr.Examples(EXAMPLES, photograph, cache_examples=False)
        gr.Markdown(f"{LIT} {_known(captioner.config)}")
        photograph.change(look, photograph, [sentence, maps], api_visibility="private")
        # An event of the image box and not gr.api: Gradio then takes uploads (and addresses), no path of the server's.
        gr.Button(visible=False).click(describe, photograph, gr.JSON(visible=False), api_name="caption")
    return page


def _known(config: CaptionerConfig) -> str:
    """What was measured of this captioner, in plain sentences; nothing is said of what was not."""
    occlusion = config.occlusion
    seen = SEEN if config.results and config.results.dataset == "Flickr8k" else ""
    if occlusion is None:
        return seen
    most, random = (f"{100 * occlusion.hidden[fifth]:.0f} %" for fifth in FIFTHS[:2])
    return (
        f"Tested on {occlusion.photographs:,} photographs: with the most attended fifth painted over, a word's "
        f"probability falls from {100 * occlusion.untouched:.0f} % to {most}; with a random fifth, to {random}. {seen}"
    )


def _caption(captioner: ImageCaptioner, photograph: str) -> Caption:
    try:
        caption: Caption = captioner.caption(photograph, num_captions=1)
        return caption
    except ImageError as error:
        reason = str(error).removeprefix(f"{photograph}: ")  # where the server keeps it is nobody's business
        raise gr.Error(f"This picture cannot be read: {reason}", print_exception=False) from error


def serve(model: str | None = None, port: int | None = None, *, open_browser: bool = False) -> None:
    """Load the captioner once and serve the page until interrupted. Raises CheckpointError."""
    page = build_page(ImageCaptioner.from_pretrained(model))
    page.space_id = None  # else the page asks the Hub and a font server for a header
    page.queue(max_size=40, default_concurrency_limit=2)
    page.launch(
        server_port=port,
        inbrowser=open_browser,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=CSS,
        footer_links=[],
        run_history=False,
        max_file_size="20mb",
        show_error=True,
    )


if __name__ == "__main__":
    serve(os.environ.get("HF_CAPTIONER_MODEL"))
