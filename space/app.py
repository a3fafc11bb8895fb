"""The web page: a photograph, its caption, and for each word where the model looked."""

import argparse
import os
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
from PIL import Image

from hf_captioner import Caption, ImageCaptioner, ImageError

EXAMPLES = Path(__file__).parent / "examples"
ABOUT = (
    "Lit places are where the model looked while it chose the word: a hint at what the word rests on, no proof. "
    "The model has seen photographs of people and dogs, mostly outdoors; of anything else it talks nonsense, fluently."
)


class Photograph(gr.Image):
    """An image box that hands on the file's path, so that one function of the package opens every picture."""

    is_template = True

    def preprocess(self, payload):  # type: ignore[no-untyped-def]
        return None if payload is None else payload.path


def build_page(captioner: ImageCaptioner) -> gr.Blocks:
    """The page around a captioner; starts nothing."""

    def look(photograph: str | None) -> tuple[str, list[tuple[Image.Image, str]]]:
        """Caption a photograph; one picture a word shows where the model looked."""
        if photograph is None:
            return "", []
        caption = _caption(captioner, photograph)
        maps = [(caption.overlay(photograph, index), word.text) for index, word in enumerate(caption.words)]
        return caption.text, maps

    def caption(image: str) -> dict[str, object]:
        """Caption a photograph: the sentence, and for each word its probability, alternatives and attention."""
        return _caption(captioner, image).to_dict(attention=True)

    with gr.Blocks(title="What did it look at?", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gr.Markdown("# What did it look at?\nA caption for your photograph, and where the model looked for every word.")
        with gr.Row():
            photograph = Photograph(
                sources=["upload", "webcam", "clipboard"], type="filepath", label="Photograph", buttons=[], height=380
            )
            with gr.Column():
                sentence = gr.Textbox(label="Caption", interactive=False, lines=2, elem_id="caption")
                maps = gr.Gallery(label="Where it looked, word by word", columns=4, buttons=[], elem_id="maps")
        examples = sorted(str(path) for path in EXAMPLES.glob("*.jpg"))
        if examples:
            gr.Examples(examples, photograph, cache_examples=False)
        gr.Markdown(ABOUT)
        photograph.change(look, photograph, [sentence, maps], api_visibility="private")
        gr.api(caption, api_name="caption")
    return page


def _caption(captioner: ImageCaptioner, photograph: str) -> Caption:
    try:
        caption: Caption = captioner.caption(photograph, num_captions=1)
        return caption
    except ImageError as error:
        reason = str(error).rpartition(os.sep)[2]
        raise gr.Error(f"This picture cannot be read. {reason}", print_exception=False) from error


def main(model: str | None = None, port: int | None = None) -> None:
    """Load the captioner once and serve the page until interrupted."""
    page = build_page(ImageCaptioner.from_pretrained(model))
    page.space_id = None  # else the page asks the Hub and a font server for a header
    page.queue(max_size=40, default_concurrency_limit=2)
    page.launch(
        server_port=port,
        theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        footer_links=[],
        run_history=False,
        max_file_size="20mb",
        show_error=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=os.environ.get("HF_CAPTIONER_MODEL"), help="folder or Hub id")
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    main(arguments.model, arguments.port)
