"""The captions of one photo: the model's own, and those that a visitor asks for."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_captioner import Caption, ConfigError, ImageCaptioner
from hf_captioner.errors import shown
from hf_captioner.images import occlude
from hf_captioner.modeling.generation import StoppingCriteria

MASK_SIZE = 32
"""Cells on each side of the mask that the brush paints."""
NORMAL, SHORTER, LONGER = LENGTHS = ("Normal", "Shorter", "Longer")
MOST_LIKELY, MORE_VARIED = STYLES = ("Most likely", "More varied")
SEVERAL = 3
EXTRA_WORDS = 2
"""A longer caption has at least this many words more than the first one."""
MAX_WORDS_GIVEN = 200
"""Characters of a visitor's first words, or of the words to leave out."""


@dataclass(frozen=True)
class CaptionRequest:
    """How a visitor wants the photo captioned; by default as the checkpoint does it. Raises ConfigError."""

    prefix: str = ""
    bad_words: str = ""
    """Words separated by commas or spaces."""
    length: str = NORMAL
    style: str = MOST_LIKELY
    several: bool = False
    """SEVERAL different captions."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, found, expected in (("length", self.length, LENGTHS), ("style", self.style, STYLES)):
            if found not in expected:
                raise ConfigError(f"The {name} is {shown(found)}; expected one of {', '.join(expected)}.")
        for name, text in (("first words", self.prefix), ("words to leave out", self.bad_words)):
            if not (isinstance(text, str) and len(text) <= MAX_WORDS_GIVEN and _is_unicode(text)):
                raise ConfigError(f"The {name} are too long, or no text; use at most {MAX_WORDS_GIVEN} characters.")
        if not (isinstance(self.several, bool) and isinstance(self.seed, int) and 0 <= self.seed < 1 << 31):
            raise ConfigError("Several is true or false, and the seed a whole number from 0 on.")


def _is_unicode(text: str) -> bool:
    """Whether it holds no half of a character, as JSON may; the tokenizer takes none."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def first_caption(captioner: ImageCaptioner, pixels: Tensor, stopping_criteria: StoppingCriteria | None) -> Caption:
    """As the checkpoint captions pixels (3, S, S). Raises GenerationStopped."""
    return _captions(captioner, pixels, {}, stopping_criteria)[0]


def recaption(
    captioner: ImageCaptioner,
    pixels: Tensor,
    request: CaptionRequest,
    covered: np.ndarray | None,
    words: int,
    *,
    stopping_criteria: StoppingCriteria | None = None,
) -> list[Caption]:
    """Caption pixels (3, S, S) as requested, with the covered cells painted over.

    covered: (MASK_SIZE, MASK_SIZE) bool, or None. words: how many the first caption has, for what is shorter or longer.
    Raises ConfigError, GenerationStopped.
    """
    check_prefix(captioner, request.prefix)
    if covered is not None:
        pixels = occlude(pixels, torch.from_numpy(covered)[None])[0]
    options = generation_options(captioner, request, words)
    captions = _captions(captioner, pixels, options, stopping_criteria)
    if request.length == SHORTER and not all(caption.finished for caption in captions):
        raise ConfigError("The model finds no shorter caption of this photo.")
    return most_different(captions) if request.several else captions[:1]


def _captions(
    captioner: ImageCaptioner, pixels: Tensor, options: dict[str, Any], stopping_criteria: StoppingCriteria | None
) -> list[Caption]:
    generation_config, features = captioner.prepare_generation_config(options), captioner.encode(pixels[None])
    (best,) = captioner.caption_features(features, generation_config, stopping_criteria=stopping_criteria)
    return list(best.candidates)


def generation_options(captioner: ImageCaptioner, request: CaptionRequest, words: int) -> dict[str, Any]:
    """A request as fields of GenerationConfig, where the first caption has this many words."""
    options: dict[str, Any] = {}
    after_prefix = len(captioner.tokenizer.encode(request.prefix)) + 1
    if request.prefix.strip():
        options["prefix"] = request.prefix
    if request.bad_words.strip():
        options["bad_words"] = tuple(captioner.tokenizer.split(request.bad_words.replace(",", " ")))
    if request.length == SHORTER:
        options |= {"min_length": 1, "max_length": max(words - 1, after_prefix), "num_beams": 20}
    if request.length == LONGER:
        options |= {"min_length": words + EXTRA_WORDS, "max_length": max(2 * words + EXTRA_WORDS, after_prefix)}
    if request.style == MORE_VARIED:
        options |= {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": request.seed}
    if request.several:
        options["num_return_sequences"] = SEVERAL
        if request.style == MOST_LIKELY:
            options |= {"num_beams": 2 * SEVERAL, "num_beam_groups": SEVERAL, "diversity_penalty": 3.0}
        else:
            options["num_return_sequences"] = 4 * SEVERAL  # of samples many are near-twins
    return options


def check_prefix(captioner: ImageCaptioner, prefix: str) -> None:
    """Raise ConfigError, in a visitor's words, where no caption can begin like this."""
    unknown = [f"“{word}”" for word in prefix.split() if not captioner.tokenizer.knows(word)]
    if unknown:
        raise ConfigError(f"The model doesn't know {', '.join(unknown)}. Try a more common word.")
    words, most = len(captioner.tokenizer.encode(prefix)), captioner.generation_config.max_length
    if words > most:
        raise ConfigError(f"The caption cannot start with {words} words. Use at most {most}.")


def most_different(captions: Sequence[Caption]) -> list[Caption]:
    """SEVERAL of the captions: the first, then again and again the one least like those that are taken."""
    taken, rest = list(captions[:1]), list(captions[1:])
    while rest and len(taken) < SEVERAL:
        taken.append(max(rest, key=lambda caption: min(_distance(caption, other) for other in taken)))
        rest.remove(taken[-1])
    return taken


def _distance(caption: Caption, other: Caption) -> float:
    """Between two captions' words: 0 for the same ones, 1 where none is shared."""
    mine, theirs = ([word.text for word in each.words] for each in (caption, other))
    return 1 - difflib.SequenceMatcher(a=mine, b=theirs, autojunk=False).ratio()
