"""The tab for one image: its caption, where the model looked, other captions on request, and its alt text."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from hf_captioner import Caption, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.attention_view import attention_view, newest, view_data
from hf_captioner.demo.session import (
    ALT_TEXT_LIMIT,
    LENGTHS,
    LOW_CONFIDENCE,
    MASK_SIZE,
    MORE_VARIED,
    MOST_LIKELY,
    NORMAL,
    NOTHING_COVERED,
    STYLES,
    CaptionRequest,
    Session,
    alternatives,
    as_sentence,
    changed_words,
    html_snippet,
    most_attended,
    percent,
    recaption,
    request_label,
    start_session,
)
from hf_captioner.demo.uploads import Upload, image_input, upload_error
from hf_captioner.demo.visits import TOO_LONG, Visits
from hf_captioner.errors import GenerationStopped

NO_IMAGE = "Upload a photo, or try one of these."
CONFIDENCE = "the chance that this caption is better than its typical one"
SESSION_TTL = 1800
"""Seconds after which an image that nothing more was asked of is forgotten."""
EXPIRED = f"Photos are forgotten after {SESSION_TTL // 60} minutes. Upload yours again."
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


def single_tab(captioner: ImageCaptioner, visits: Visits, examples: Mapping[str, str], explanation: str) -> gr.Image:
    """Build the tab inside the page being built; returns its image box. examples: label -> path."""
    session = gr.State(None, time_to_live=SESSION_TTL)
    with gr.Column(elem_id="single"):
        with gr.Column(elem_id="source"):
            image = image_input(sources=["upload", "webcam", "clipboard"], label="Photo", height=260, elem_id="image")
            hint = gr.Markdown(NO_IMAGE)
            with gr.Row(elem_id="examples"):
                for label, path in examples.items():  # gr.Examples gives its images no names
                    gr.Button(label, icon=path, size="sm", min_width=60).click(
                        lambda path=path: path, None, image, **PRIVATE
                    )
        with gr.Column(elem_id="result"):
            view = attention_view(elem_id="attention_view")
            gr.Markdown(explanation)
            with gr.Column(visible=False) as alt_text_panel:
                confidence, alt_text, use_new = _alt_text(image, session)
        with gr.Column(visible=False, elem_id="controls") as control_panel:
            controls = _controls()
    results = [session, alt_text, use_new, view, hint, confidence, alt_text_panel, control_panel]
    _connect(Handlers(captioner, visits), image, view, controls, results)
    return image


def _controls() -> Controls:
    gr.Markdown("## Try another caption")
    choices = gr.Radio(
        [], label="Other likely words: pick one to rewrite the rest", visible=False, elem_id="alternatives"
    )
    return Controls(
        alternatives=choices,
        prefix=gr.Textbox(label="Start with", placeholder="first words of the caption", max_lines=1, max_length=200),
        bad_words=gr.Textbox(
            label="Leave out", placeholder="words, with commas between them", max_lines=1, max_length=200
        ),
        length=gr.Radio(list(LENGTHS), value=NORMAL, label="Length"),
        style=gr.Radio(list(STYLES), value=MOST_LIKELY, label="Style"),
        several=gr.Checkbox(label="Three different captions"),
        seed=gr.State(0),
        resample=gr.Button("Try again", visible=False),
        reset=gr.Button("Reset"),
    )


def _alt_text(image: gr.Image, session: gr.State) -> tuple[gr.Markdown, gr.Textbox, gr.Button]:
    """The confidence, the box with the alternative text, and the button that replaces an edited one."""
    confidence = gr.Markdown()
    alt_text = gr.Textbox(label="Alt text (check before using)", lines=2)
    use_new = gr.Button("Use the new caption", visible=False)
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

    def replace(session: Session | None) -> tuple[Any, gr.Button]:
        return (as_sentence(session.newest.text) if session else gr.skip()), gr.Button(visible=False)

    alt_text.change(describe, [image, alt_text], [length, snippet], **PRIVATE)
    use_new.click(replace, session, [alt_text, use_new], **PRIVATE)
    return confidence, alt_text, use_new


@dataclass(frozen=True)
class Handlers:
    """What happens at each touch of the page; they return values for the results, as `outputs` does."""

    captioner: ImageCaptioner
    visits: Visits

    def image(self, upload: Upload | None, visitor: gr.Request) -> list[Any]:
        """Caption a new image; what was requested of the one before is forgotten."""
        values: list[Any] = [None, "", gr.Button(visible=False), {}, NO_IMAGE, "", *[gr.Column(visible=False)] * 2]
        if upload is not None:
            try:
                criteria = self.visits.stopping_criteria(visitor)
                values = outputs(start_session(self.captioner, upload.path, stopping_criteria=criteria))
            except ImageError as error:
                gr.Warning(html.escape(upload_error(error, upload)))
            except GenerationStopped:
                gr.Warning(TOO_LONG)
        return [*values, *initial_values()]

    def request(
        self,
        visitor: gr.Request,
        session: Session | None,
        alt_text: str,
        *fields: Any,
        covered: np.ndarray | None = None,
    ) -> list[Any]:
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
            criteria = self.visits.stopping_criteria(visitor)
            new = recaption(self.captioner, session, request, covered, stopping_criteria=criteria)
            return outputs(new, edited(session, alt_text))
        except ConfigError as error:
            gr.Warning(html.escape(str(error)))
        except GenerationStopped:
            gr.Warning(TOO_LONG)
        return unchanged()

    def cover(
        self, visitor: gr.Request, cells: list[int], session: Session | None, alt_text: str, *fields: Any
    ) -> list[Any]:
        covered = np.array(cells, bool).reshape(MASK_SIZE, MASK_SIZE)
        return self.request(visitor, session, alt_text, *fields, covered=covered)

    def hide(
        self, event: gr.EventData, visitor: gr.Request, session: Session | None, alt_text: str, *fields: Any
    ) -> list[Any]:
        """Cover what a word attended to most."""
        if session is None:
            return self.request(visitor, None, alt_text, *fields, covered=NOTHING_COVERED)
        caption, word = event.place
        mask = most_attended(session.captions[caption].words[word].attention)
        return self.request(visitor, session, alt_text, *fields, covered=session.covered | mask)

    def word(self, place: tuple[int, int] | None, session: Session | None) -> Any:
        """Offer the alternatives of a word, or none where no word is selected any more."""
        if place is None:
            return gr.Radio([], value=None, visible=False)
        if session is None:
            gr.Warning(EXPIRED)
            return gr.skip()
        caption, word = place
        choices = alternatives(self.captioner, session.captions[caption], word)
        return gr.Radio(choices, value=None, visible=True)

    def reset(self, session: Session | None, alt_text: str) -> list[Any]:
        if session is None:
            return [*unchanged(), *initial_values()]
        plain = recaption(self.captioner, session, CaptionRequest(), NOTHING_COVERED)
        return [*outputs(plain, edited(session, alt_text)), *initial_values()]


def _connect(
    on: Handlers, image: gr.Image, view: gr.HTML, controls: Controls, results: list[gr.components.Component]
) -> None:
    session, alt_text = results[:2]
    inputs = [session, alt_text, *controls.request]
    request: dict[str, Any] = {"fn": on.request, "inputs": inputs, "outputs": results, **PRIVATE}
    image.change(on.image, image, [*results, *controls.resettable], **PRIVATE)
    newest_value = gr.JSON(visible=False)
    last: dict[str, Any] = {"trigger_mode": "always_last", **PRIVATE}
    view.word(on.word, [newest_value, session], controls.alternatives, js=newest("place"), **last)
    view.cover(on.cover, [newest_value, *inputs], results, js=newest("covered"), **last)
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
    controls.reset.click(on.reset, [session, alt_text], [*results, *controls.resettable], **PRIVATE)


def outputs(session: Session, own_text: str | None = None) -> list[Any]:
    """A session on the page: the session, the alt text, the view, no hint, the confidence, and both panels.

    own_text: alt text that the visitor has edited; it stays, and the new caption is offered.
    """
    label, caption = request_label(session), session.newest
    lines = [("Caption", session.caption, [False] * len(session.caption.words))]
    lines += [(label, new, changed_words(session.caption, new)) for new in session.recaptions]
    view = view_data(session.image, lines, session.covered, session.mean_colour)
    panels = [gr.Column(visible=True), gr.Column(visible=True)]
    alt_text = as_sentence(caption.text) if own_text is None else gr.skip()
    use_new = gr.Button(visible=own_text is not None)
    return [session, alt_text, use_new, view, "", confidence_note(caption), *panels]


def edited(session: Session, alt_text: str) -> str | None:
    """The alt text where it is no longer what the page wrote for the newest caption, else None."""
    return None if alt_text.strip() in ("", as_sentence(session.newest.text)) else alt_text


def unchanged() -> list[Any]:
    """In place of `outputs`: the page stays as it is."""
    return [gr.skip()] * 8


def confidence_note(caption: Caption) -> str:
    """How sure the model is, with a warning where it is not; empty where the checkpoint has no calibration."""
    if caption.confidence is None:
        return ""
    share = percent(caption.confidence)
    if caption.confidence < LOW_CONFIDENCE:
        return f"⚠️ **Low confidence ({share})**: {CONFIDENCE}."
    return f"Confidence {share}: {CONFIDENCE}."
