"""What a visitor asks of a photograph: plain functions of a captioner that know nothing of the page."""

import dataclasses
import difflib
import html
import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_captioner import Caption, ConfigError, ImageCaptioner
from hf_captioner.images import ImageSource, occlude, open_image, read_pixels

SHOWN = 1280
"""Longest side of the photograph on the page, in pixels."""
CELLS = 32
"""Cells a side of what the brush paints."""
FIFTH = 0.2
"""Share of the photograph that is covered for a word."""
NATURAL, SHORTER, LONGER = LENGTHS = ("natural", "shorter", "longer")
SAFE, LIVELY = MOODS = ("safe", "livelier")
MORE = 2
"""Words that a longer caption has more than the plain one, at least."""
NOTHING = np.zeros((CELLS, CELLS), bool)
"""Nothing covered."""
DOUBTFUL = 0.3
"""Below this confidence a caption is offered with a warning."""
ALT_TEXT_LIMIT = 125
"""Characters after which some screen readers cut an alternative text."""


@dataclass(frozen=True)
class CaptionRequest:
    """How a visitor wants the photograph captioned; by default as the checkpoint does it."""

    prefix: str = ""
    bad_words: str = ""
    """Words, with commas or spaces between them."""
    length: str = NATURAL
    mood: str = SAFE
    several: bool = False
    """Three different captions."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Session:
    """One visitor's photograph and what was said of it."""

    photograph: bytes
    """JPEG, at most SHOWN pixels long."""
    colour: tuple[int, ...]
    """Its mean colour, RGB."""
    pixels: Tensor
    """(3, S, S), as the model reads it."""
    plain: Caption
    """The caption of the whole photograph, nothing asked."""
    request: CaptionRequest = CaptionRequest()
    answers: tuple[Caption, ...] = ()
    """The captions of the request; none where nothing is wished and nothing covered."""
    covered: np.ndarray = dataclasses.field(default_factory=NOTHING.copy)
    """(CELLS, CELLS): where the photograph is painted over."""

    @property
    def captions(self) -> tuple[Caption, ...]:
        return (self.plain, *self.answers)


def start_session(captioner: ImageCaptioner, source: ImageSource) -> Session:
    """Read a photograph and caption it. Raises ImageError."""
    photograph = open_image(source)
    pixels = read_pixels(source, captioner.config)
    plain = _captions(captioner, pixels, {})[0]
    mean, file = np.array(photograph.resize((1, 1), Image.Resampling.BOX)), io.BytesIO()
    photograph.thumbnail((SHOWN, SHOWN))
    photograph.save(file, "JPEG", quality=88)
    return Session(file.getvalue(), tuple(mean.flatten().tolist()), pixels, plain)


def recaption(captioner: ImageCaptioner, session: Session, request: CaptionRequest, covered: np.ndarray) -> Session:
    """Caption the photograph again as wished, with the covered cells painted over. Raises ConfigError."""
    answers: list[Caption] = []
    if request != CaptionRequest(seed=request.seed) or covered.any():
        pixels = occlude(session.pixels, torch.from_numpy(covered)[None])[0]
        answers = _captions(captioner, pixels, search_of(request, len(session.plain.words)))
        if request.length == SHORTER and not all(answer.finished for answer in answers):
            raise ConfigError("It finds no shorter caption of this photograph.")
    return dataclasses.replace(session, request=request, answers=tuple(answers), covered=covered)


def _captions(captioner: ImageCaptioner, pixels: Tensor, search: dict[str, Any]) -> list[Caption]:
    settings = captioner.prepare_generation_config(search)
    return list(captioner.caption_features(captioner.encode(pixels[None]), settings)[0].candidates)


def search_of(request: CaptionRequest, words: int) -> dict[str, Any]:
    """A request as keywords of `ImageCaptioner.caption`, where the plain caption has so many words."""
    search: dict[str, Any] = {}
    if request.prefix.strip():
        search["prefix"] = request.prefix
    if request.bad_words.strip():
        search["bad_words"] = tuple(re.split(r"[\s,]+", request.bad_words.strip(" ,")))
    if request.length == SHORTER:
        search |= {"max_length": max(words - 1, len(request.prefix.split()) + 1), "num_beams": 20}
    if request.length == LONGER:
        search |= {"min_length": words + MORE, "max_length": 2 * words + MORE}
    if request.mood == LIVELY:
        search |= {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": request.seed}
    if request.several:
        search["num_return_sequences"] = 3
        if request.mood == SAFE:
            search |= {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 3.0}
    return search


def request_label(session: Session) -> str:
    """What was asked for the answers, in words."""
    request = session.request
    asked = ["with a part covered"] * bool(session.covered.any())
    asked += [f"beginning “{request.prefix.strip()}”"] * bool(request.prefix.strip())
    asked += [f"avoiding “{request.bad_words.strip()}”"] * bool(request.bad_words.strip())
    asked += [request.length] * (request.length != NATURAL) + [request.mood] * (request.mood != SAFE)
    asked += ["three captions"] * request.several
    return f"Asked again: {', '.join(asked)}"


def most_attended(attention: np.ndarray) -> np.ndarray:
    """(h, w) -> (CELLS, CELLS): the fifth of the photograph that a word looked at most."""
    rows, columns = (np.arange(CELLS) * side // CELLS for side in attention.shape)
    fine = attention[rows][:, columns]
    hidden: np.ndarray = fine >= np.quantile(attention, 1 - FIFTH)
    return hidden


def changed_words(before: Caption, after: Caption) -> list[bool]:
    """For each word of the later caption, whether it is new."""
    old, new = ([word.text for word in caption.words] for caption in (before, after))
    kept = [False] * len(new)
    for block in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_matching_blocks():
        kept[block.b : block.b + block.size] = [True] * block.size
    return [not word for word in kept]


def alternatives(captioner: ImageCaptioner, caption: Caption, index: int) -> list[tuple[str, str]]:
    """The likeliest words at a place: (word and probability for people, the caption's beginning with it)."""
    before, tokenizer = [word.text for word in caption.words[:index]], captioner.tokenizer
    return [
        (f"{word} ({probability:.0%})", " ".join([*before, word]))
        for word, probability in caption.words[index].alternatives
        if tokenizer.encode(word) and tokenizer.unknown_id not in tokenizer.encode(word)
    ]


def sentence(text: str) -> str:
    """A caption as a sentence: a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""


def html_snippet(name: str, text: str) -> str:
    """The HTML that shows a picture with its alternative text."""
    return f'<img src="{html.escape(name)}" alt="{html.escape(text)}">'
