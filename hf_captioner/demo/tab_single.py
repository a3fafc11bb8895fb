"""The tab for one photograph: its caption, where the model looked, what it says when asked otherwise, its alt text."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from hf_captioner import Caption, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.attention_view import attention_view, view_data
from hf_captioner.demo.session import (
    ALT_TEXT_LIMIT,
    CELLS,
    DOUBTFUL,
    LENGTHS,
    LIVELY,
    MOODS,
    NATURAL,
    NOTHING,
    SAFE,
    CaptionRequest,
    Session,
    alternatives,
    changed_words,
    html_snippet,
    most_attended,
    recaption,
    request_label,
    sentence,
    start_session,
)
from hf_captioner.demo.uploads import Upload, cannot_read, picture

NO_OPINION = "Give it a photograph, or choose an example."
DOUBT = "⚠️ **Check this one:** the model is far from sure, and may be plain wrong."
REMEMBERED = 1800
"""Seconds after which a photograph that nothing more was asked of is forgotten."""
FORGOTTEN = f"The photograph is forgotten after {REMEMBERED // 60} minutes; give it again."
COPY = "(text) => navigator.clipboard.writeText(text)"
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


@dataclass(frozen=True)
class Controls:
    """What a visitor wishes with; the first six are the fields of a CaptionRequest."""

    begin: gr.Textbox
    bad_words: gr.Textbox
    length: gr.Radio
    mood: gr.Radio
    several: gr.Checkbox
    seed: gr.State
    choices: gr.Radio
    again: gr.Button
    reset: gr.Button

    @property
    def request(self) -> list[gr.components.Component]:
        return [self.begin, self.bad_words, self.length, self.mood, self.several, self.seed]

    @property
    def changing(self) -> list[gr.components.Component]:
        """What a new photograph finds as it was at first."""
        return [*self.request, self.choices, self.again]


def at_first() -> list[Any]:
    """The values of `Controls.changing` before anything is wished."""
    request = CaptionRequest()
    fields = [request.prefix, request.bad_words, request.length, request.mood, request.several, request.seed]
    return [*fields, gr.Radio([], value=None, visible=False), gr.Button(visible=False)]


def single_tab(captioner: ImageCaptioner, examples: Sequence[str], explanation: str) -> gr.Image:
    """Build the tab inside the page being built; returns its image box."""
    session = gr.State(None, time_to_live=REMEMBERED)
    with gr.Column(elem_id="one"):
        with gr.Column(elem_id="given"):
            photograph = picture(
                sources=["upload", "webcam", "clipboard"], label="Photograph", height=260, elem_id="photograph"
            )
            with gr.Row(elem_id="examples"):
                for path in examples:  # gr.Examples gives its pictures no names
                    gr.Button(Path(path).stem.capitalize(), icon=path, size="sm", min_width=60).click(
                        lambda path=path: path, None, photograph, **PRIVATE
                    )
        with gr.Column(elem_id="seen"):
            seen = attention_view(elem_id="attention_view")
            hint = gr.Markdown(NO_OPINION)
            gr.Markdown(explanation)
            with gr.Column(visible=False) as written:
                doubt, alt = _alt_text(photograph)
        with gr.Column(visible=False, elem_id="asked") as asked:
            controls = _controls()
    _connect(captioner, photograph, session, controls, seen, [session, seen, hint, doubt, alt, written, asked])
    return photograph


def _controls() -> Controls:
    gr.Markdown("## Ask for another caption")
    choices = gr.Radio(
        [], label="Likeliest there: choose one, and the rest is written anew", visible=False, elem_id="choices"
    )
    return Controls(
        choices=choices,
        begin=gr.Textbox(label="Begin with", placeholder="two dogs", max_lines=1, max_length=200),
        bad_words=gr.Textbox(label="Avoid these words", placeholder="man, shirt", max_lines=1, max_length=200),
        length=gr.Radio(list(LENGTHS), value=NATURAL, label="Length"),
        mood=gr.Radio(list(MOODS), value=SAFE, label="Safe, or drawn at random"),
        several=gr.Checkbox(label="Three different captions"),
        seed=gr.State(0),
        again=gr.Button("Draw another", visible=False),
        reset=gr.Button("As it says by itself"),
    )


def _alt_text(photograph: gr.Image) -> tuple[gr.Markdown, gr.Textbox]:
    gr.Markdown("## Alt text")
    doubt = gr.Markdown()
    alt = gr.Textbox(label="For you to check and edit", lines=2)
    counted = gr.Markdown(elem_id="counted")
    markup = gr.Textbox(label="HTML", lines=2, interactive=False)
    with gr.Row():  # Gradio's own copy button would take the boxes their names
        gr.Button("Copy text").click(None, alt, js=COPY, **PRIVATE)
        gr.Button("Copy HTML").click(None, markup, js=COPY, **PRIVATE)

    def written(upload: Upload | None, text: str) -> tuple[str, str]:
        note = f"{len(text)} characters."
        if len(text) > ALT_TEXT_LIMIT:
            note += f" Some screen readers stop after {ALT_TEXT_LIMIT}."
        return note, html_snippet(upload.name if upload else "", text) if text else ""

    alt.change(written, [photograph, alt], [counted, markup], **PRIVATE)
    return doubt, alt


def _connect(
    captioner: ImageCaptioner,
    photograph: gr.Image,
    session: gr.State,
    controls: Controls,
    seen: gr.HTML,
    results: list[gr.components.Component],
) -> None:
    """What happens at each touch; `results` are what `outputs` fills."""
    unchanged = [gr.skip()] * len(results)

    def look(upload: Upload | None) -> list[Any]:
        """A photograph is captioned; what was asked of the one before is forgotten."""
        told: list[Any] = [None, {}, NO_OPINION, "", "", *[gr.Column(visible=False)] * 2]
        if upload is not None:
            try:
                told = outputs(start_session(captioner, upload.path))
            except ImageError as error:
                gr.Warning(html.escape(cannot_read(error, upload)))
        return [*told, *at_first()]

    def ask(session: Session | None, *wished: Any, covered: np.ndarray | None = None) -> list[Any]:
        request = CaptionRequest(*wished)
        if session is None:
            if request != CaptionRequest() or covered is not None:
                gr.Warning(FORGOTTEN)
            return unchanged
        covered = session.covered if covered is None else covered
        if request == session.request and (covered == session.covered).all():
            return unchanged
        try:
            return outputs(recaption(captioner, session, request, covered))
        except ConfigError as error:
            gr.Warning(html.escape(str(error)))
            return unchanged

    def brushed(event: gr.EventData, session: Session | None, *wished: Any) -> list[Any]:
        return ask(session, *wished, covered=np.array(event.covered, bool).reshape(CELLS, CELLS))

    def hidden(event: gr.EventData, session: Session | None, *wished: Any) -> list[Any]:
        if session is None:
            return ask(None, *wished, covered=NOTHING)
        caption, word = event.place
        cells = most_attended(session.captions[caption].words[word].attention)
        return ask(session, *wished, covered=session.covered | cells)

    def likeliest(event: gr.EventData, session: Session | None) -> Any:
        if session is None:
            gr.Warning(FORGOTTEN)
            return gr.skip()
        caption, word = event.place
        return gr.Radio(alternatives(captioner, session.captions[caption], word), value=None, visible=True)

    def reset(session: Session | None) -> list[Any]:
        told = unchanged if session is None else outputs(recaption(captioner, session, CaptionRequest(), NOTHING))
        return [*told, *at_first()]

    wished = [session, *controls.request]
    answer: dict[str, Any] = {"fn": ask, "inputs": wished, "outputs": results, **PRIVATE}
    photograph.change(look, photograph, [*results, *controls.changing], **PRIVATE)
    seen.word(likeliest, session, controls.choices, **PRIVATE)
    seen.cover(brushed, wished, results, **PRIVATE)
    seen.hide(hidden, wished, results, **PRIVATE)
    controls.choices.input(lambda chosen: chosen, controls.choices, controls.begin, **PRIVATE).then(**answer)
    controls.again.click(lambda last: last + 1, controls.seed, controls.seed, **PRIVATE).then(**answer)
    controls.mood.input(lambda now: gr.Button(visible=now == LIVELY), controls.mood, controls.again, **PRIVATE)
    written = [box_event for box in (controls.begin, controls.bad_words) for box_event in (box.submit, box.blur)]
    touched = [controls.length.input, controls.mood.input, controls.several.input]
    gr.on([*written, *touched], trigger_mode="always_last", **answer)
    controls.reset.click(reset, session, [*results, *controls.changing], **PRIVATE)


def outputs(session: Session) -> list[Any]:
    """What a session shows: itself, the words over the photograph, no hint, how sure the model is, the alternative
    text, and what there is to do with them."""
    label, newest = request_label(session), (session.answers or (session.plain,))[0]
    lines = [("It says", session.plain, [False] * len(session.plain.words))]
    lines += [(label, answer, changed_words(session.plain, answer)) for answer in session.answers]
    value = view_data(session.photograph, lines, session.covered, session.colour)
    return [session, value, "", sure(newest), sentence(newest.text), *[gr.Column(visible=True)] * 2]


def sure(caption: Caption) -> str:
    """How sure the model is, and a warning where it is not; nothing where the checkpoint has no calibration."""
    if caption.confidence is None:
        return ""
    told = f"Confidence {caption.confidence:.0%}: the chance that this is better than the model's usual caption."
    return f"{DOUBT} {told}" if caption.confidence < DOUBTFUL else told
