"""The tab for one image: its caption, where the model looked, other captions on request, and its alt text."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from hf_captioner import Caption, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.attention_view import attention_view, view_data
from hf_captioner.demo.session import (
    ALT_TEXT_LIMIT,
    LENGTHS,
    LOW_CONFIDENCE,
    MASK_SIZE,
    MORE_VARIED,
    MOST_LIKELY,
    NATURAL,
    NOTHING_COVERED,
    STYLES,
    CaptionRequest,
    Session,
    alternatives,
    as_sentence,
    changed_words,
    html_snippet,
    most_attended,
    recaption,
    request_label,
    start_session,
)
from hf_captioner.demo.uploads import Upload, image_input, upload_error

NO_IMAGE = "Give it a photograph, or choose an example."
WARNING = "⚠️ **Check this one:** the model is far from sure, and may be plain wrong."
SESSION_TTL = 1800
"""Seconds after which an image that nothing more was asked of is forgotten."""
EXPIRED = f"The photograph is forgotten after {SESSION_TTL // 60} minutes; give it again."
COPY = "(text) => navigator.clipboard.writeText(text)"
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


@dataclass(frozen=True)
class Controls:
    """What a visitor steers captions with."""

    prefix: gr.Textbox
    bad_words: gr.Textbox
    length: gr.Radio
    style: gr.Radio
    several: gr.Checkbox
    seed: gr.State
    alternatives: gr.Radio
    resample: gr.Button
    reset: gr.Button

    @property
    def request(self) -> list[gr.components.Component]:
        """The fields of a CaptionRequest, in their order."""
        return [self.prefix, self.bad_words, self.length, self.style, self.several, self.seed]

    @property
    def resettable(self) -> list[gr.components.Component]:
        """What a new image sets back to `initial_values`."""
        return [*self.request, self.alternatives, self.resample]


def initial_values() -> list[Any]:
    """The values of `Controls.resettable` before anything is requested."""
    request = CaptionRequest()
    fields = [request.prefix, request.bad_words, request.length, request.style, request.several, request.seed]
    return [*fields, gr.Radio([], value=None, visible=False), gr.Button(visible=False)]


def single_tab(captioner: ImageCaptioner, examples: Mapping[str, str], explanation: str) -> gr.Image:
    """Build the tab inside the page being built; returns its image box. examples: label -> path."""
    session = gr.State(None, time_to_live=SESSION_TTL)
    with gr.Column(elem_id="single"):
        with gr.Column(elem_id="source"):
            image = image_input(
                sources=["upload", "webcam", "clipboard"], label="Photograph", height=260, elem_id="image"
            )
            with gr.Row(elem_id="examples"):
                for label, path in examples.items():  # gr.Examples gives its images no names
                    gr.Button(label, icon=path, size="sm", min_width=60).click(
                        lambda path=path: path, None, image, **PRIVATE
                    )
        with gr.Column(elem_id="result"):
            view = attention_view(elem_id="attention_view")
            hint = gr.Markdown(NO_IMAGE)
            gr.Markdown(explanation)
            with gr.Column(visible=False) as alt_text_panel:
                confidence, alt_text = _alt_text(image)
        with gr.Column(visible=False, elem_id="controls") as control_panel:
            controls = _controls()
    results = [session, view, hint, confidence, alt_text, alt_text_panel, control_panel]
    _connect(Handlers(captioner), image, view, controls, results)
    return image


def _controls() -> Controls:
    gr.Markdown("## Ask for another caption")
    choices = gr.Radio(
        [], label="Likeliest there: choose one, and the rest is written anew", visible=False, elem_id="alternatives"
    )
    return Controls(
        alternatives=choices,
        prefix=gr.Textbox(label="Begin with", placeholder="two dogs", max_lines=1, max_length=200),
        bad_words=gr.Textbox(label="Avoid these words", placeholder="man, shirt", max_lines=1, max_length=200),
        length=gr.Radio(list(LENGTHS), value=NATURAL, label="Length"),
        style=gr.Radio(list(STYLES), value=MOST_LIKELY, label="Safe, or drawn at random"),
        several=gr.Checkbox(label="Three different captions"),
        seed=gr.State(0),
        resample=gr.Button("Draw another", visible=False),
        reset=gr.Button("As it says by itself"),
    )


def _alt_text(image: gr.Image) -> tuple[gr.Markdown, gr.Textbox]:
    """The boxes for the confidence and the alternative text."""
    gr.Markdown("## Alt text")
    confidence = gr.Markdown()
    alt_text = gr.Textbox(label="For you to check and edit", lines=2)
    length = gr.Markdown(elem_id="alt-text-length")
    snippet = gr.Textbox(label="HTML", lines=2, interactive=False)
    with gr.Row():  # Gradio's own copy buttons would take the boxes' accessible names
        gr.Button("Copy text").click(None, alt_text, js=COPY, **PRIVATE)
        gr.Button("Copy HTML").click(None, snippet, js=COPY, **PRIVATE)

    def describe(upload: Upload | None, text: str) -> tuple[str, str]:
        note = f"{len(text)} characters."
        if len(text) > ALT_TEXT_LIMIT:
            note += f" Some screen readers stop after {ALT_TEXT_LIMIT}."
        return note, html_snippet(upload.name if upload else "", text) if text else ""

    alt_text.change(describe, [image, alt_text], [length, snippet], **PRIVATE)
    return confidence, alt_text


@dataclass(frozen=True)
class Handlers:
    """What happens at each touch of the page; they return values for the results, as `outputs` does."""

    captioner: ImageCaptioner

    def image(self, upload: Upload | None) -> list[Any]:
        """Caption a new image; what was requested of the one before is forgotten."""
        values: list[Any] = [None, {}, NO_IMAGE, "", "", gr.Column(visible=False), gr.Column(visible=False)]
        if upload is not None:
            try:
                values = outputs(start_session(self.captioner, upload.path))
            except ImageError as error:
                gr.Warning(html.escape(upload_error(error, upload)))
        return [*values, *initial_values()]

    def request(self, session: Session | None, *fields: Any, covered: np.ndarray | None = None) -> list[Any]:
        """Caption the image as requested, with other cells covered where they are given."""
        request = CaptionRequest(*fields)
        if session is None:
            if request != CaptionRequest() or covered is not None:
                gr.Warning(EXPIRED)
            return unchanged()
        covered = session.covered if covered is None else covered
        if request == session.request and (covered == session.covered).all():
            return unchanged()
        try:
            return outputs(recaption(self.captioner, session, request, covered))
        except ConfigError as error:
            gr.Warning(html.escape(str(error)))
            return unchanged()

    def cover(self, event: gr.EventData, session: Session | None, *fields: Any) -> list[Any]:
        covered = np.array(event.covered, bool).reshape(MASK_SIZE, MASK_SIZE)
        return self.request(session, *fields, covered=covered)

    def hide(self, event: gr.EventData, session: Session | None, *fields: Any) -> list[Any]:
        """Cover what a word attended to most."""
        if session is None:
            return self.request(None, *fields, covered=NOTHING_COVERED)
        caption, word = event.place
        mask = most_attended(session.captions[caption].words[word].attention)
        return self.request(session, *fields, covered=session.covered | mask)

    def word(self, event: gr.EventData, session: Session | None) -> Any:
        """Offer the alternatives of a word."""
        if session is None:
            gr.Warning(EXPIRED)
            return gr.skip()
        caption, word = event.place
        choices = alternatives(self.captioner, session.captions[caption], word)
        return gr.Radio(choices, value=None, visible=True)

    def reset(self, session: Session | None) -> list[Any]:
        if session is None:
            return [*unchanged(), *initial_values()]
        return [*outputs(recaption(self.captioner, session, CaptionRequest(), NOTHING_COVERED)), *initial_values()]


def _connect(
    on: Handlers, image: gr.Image, view: gr.HTML, controls: Controls, results: list[gr.components.Component]
) -> None:
    session = results[0]
    inputs = [session, *controls.request]
    request: dict[str, Any] = {"fn": on.request, "inputs": inputs, "outputs": results, **PRIVATE}
    image.change(on.image, image, [*results, *controls.resettable], **PRIVATE)
    view.word(on.word, session, controls.alternatives, **PRIVATE)
    view.cover(on.cover, inputs, results, **PRIVATE)
    view.hide(on.hide, inputs, results, **PRIVATE)
    controls.alternatives.input(lambda prefix: prefix, controls.alternatives, controls.prefix, **PRIVATE).then(
        **request
    )
    controls.resample.click(lambda seed: seed + 1, controls.seed, controls.seed, **PRIVATE).then(**request)
    controls.style.input(
        lambda style: gr.Button(visible=style == MORE_VARIED), controls.style, controls.resample, **PRIVATE
    )
    typed = [event for box in (controls.prefix, controls.bad_words) for event in (box.submit, box.blur)]
    chosen = [controls.length.input, controls.style.input, controls.several.input]
    gr.on([*typed, *chosen], trigger_mode="always_last", **request)
    controls.reset.click(on.reset, session, [*results, *controls.resettable], **PRIVATE)


def outputs(session: Session) -> list[Any]:
    """A session on the page: the session, the view, no hint, the confidence, the alt text, and both panels."""
    label, caption = request_label(session), session.newest
    lines = [("It says", session.caption, [False] * len(session.caption.words))]
    lines += [(label, new, changed_words(session.caption, new)) for new in session.recaptions]
    view = view_data(session.image, lines, session.covered, session.mean_colour)
    panels = [gr.Column(visible=True), gr.Column(visible=True)]
    return [session, view, "", confidence_note(caption), as_sentence(caption.text), *panels]


def unchanged() -> list[Any]:
    """In place of `outputs`: the page stays as it is."""
    return [gr.skip()] * 7


def confidence_note(caption: Caption) -> str:
    """How sure the model is, with a warning where it is not; empty where the checkpoint has no calibration."""
    if caption.confidence is None:
        return ""
    note = f"Confidence {caption.confidence:.0%}: the chance that this is better than the model's usual caption."
    return f"{WARNING} {note}" if caption.confidence < LOW_CONFIDENCE else note
