"""One visitor's image and its captions: plain functions of a captioner, without the page."""

import dataclasses
import difflib
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_captioner import Caption, ConfigError, ImageCaptioner
from hf_captioner.images import ImageSource, occlude, open_image, read_pixels
from hf_captioner.modeling.generation import StoppingCriteria

MAX_DISPLAY_SIDE = 1280
"""Longest side of the image on the page, in pixels."""
MASK_SIZE = 32
"""Cells on each side of the mask that the brush paints."""
OCCLUDED_SHARE = 0.2
"""Share of the image that is covered for a word."""
NORMAL, SHORTER, LONGER = LENGTHS = ("Normal", "Shorter", "Longer")
MOST_LIKELY, MORE_VARIED = STYLES = ("Most likely", "More varied")
SEVERAL = 3
EXTRA_WORDS = 2
"""A longer caption has at least this many words more than the first one."""
NOTHING_COVERED = np.zeros((MASK_SIZE, MASK_SIZE), bool)
LOW_CONFIDENCE = 0.3
"""Below this confidence a caption comes with a warning."""
ALT_TEXT_LIMIT = 125
"""Characters after which some screen readers cut an alternative text."""


@dataclass(frozen=True)
class CaptionRequest:
    """How a visitor wants the image captioned; by default as the checkpoint does it."""

    prefix: str = ""
    bad_words: str = ""
    """Words separated by commas or spaces."""
    length: str = NORMAL
    style: str = MOST_LIKELY
    several: bool = False
    """SEVERAL different captions."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Session:
    """One visitor's image and its captions."""

    image: bytes
    """A JPEG file, at most MAX_DISPLAY_SIDE pixels long."""
    mean_colour: tuple[int, ...]
    """Of the image, RGB."""
    pixels: Tensor
    """(3, S, S), the model's input."""
    caption: Caption
    """Of the whole image, as the checkpoint generates it."""
    request: CaptionRequest = CaptionRequest()
    recaptions: tuple[Caption, ...] = ()
    """The captions of the request; empty where nothing is requested and nothing is covered."""
    covered: np.ndarray = dataclasses.field(default_factory=NOTHING_COVERED.copy)
    """(MASK_SIZE, MASK_SIZE) bool: where the image is painted over."""

    @property
    def captions(self) -> tuple[Caption, ...]:
        return (self.caption, *self.recaptions)

    @property
    def newest(self) -> Caption:
        """The best of the captions that were generated last."""
        return (self.recaptions or (self.caption,))[0]


def start_session(
    captioner: ImageCaptioner, source: ImageSource, *, stopping_criteria: StoppingCriteria | None = None
) -> Session:
    """Read an image and caption it. Raises ImageError, GenerationStopped."""
    image = open_image(source)
    pixels = read_pixels(source, captioner.config)
    caption = _captions(captioner, pixels, {}, stopping_criteria)[0]
    mean, file = np.array(image.resize((1, 1), Image.Resampling.BOX)), io.BytesIO()
    image.thumbnail((MAX_DISPLAY_SIDE, MAX_DISPLAY_SIDE))
    image.save(file, "JPEG", quality=88)
    return Session(file.getvalue(), tuple(mean.flatten().tolist()), pixels, caption)


def recaption(
    captioner: ImageCaptioner,
    session: Session,
    request: CaptionRequest,
    covered: np.ndarray,
    *,
    stopping_criteria: StoppingCriteria | None = None,
) -> Session:
    """Caption the image again as requested, with the covered cells painted over.

    Raises ConfigError, GenerationStopped.
    """
    captions: list[Caption] = []
    if request != CaptionRequest(seed=request.seed) or covered.any():
        pixels = occlude(session.pixels, torch.from_numpy(covered)[None])[0]
        check_prefix(captioner, request.prefix)
        options = generation_options(captioner, request, len(session.caption.words))
        captions = _captions(captioner, pixels, options, stopping_criteria)
        if request.length == SHORTER and not all(caption.finished for caption in captions):
            raise ConfigError("The model finds no shorter caption of this photo.")
        if request.several:
            captions = most_different(captions)
    return dataclasses.replace(session, request=request, recaptions=tuple(captions), covered=covered)


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


def request_label(session: Session) -> str:
    """What was requested, as the heading of the new captions."""
    request = session.request
    parts = ["with part of the photo covered"] * bool(session.covered.any())
    parts += [f"starting with “{request.prefix.strip()}”"] * bool(request.prefix.strip())
    parts += [f"leaving out “{request.bad_words.strip()}”"] * bool(request.bad_words.strip())
    parts += [request.length.lower()] * (request.length != NORMAL)
    parts += [request.style.lower()] * (request.style != MOST_LIKELY)
    parts += ["three captions"] * request.several
    label = ", ".join(parts)
    return label[:1].upper() + label[1:]


def most_attended(attention: np.ndarray) -> np.ndarray:
    """Attention (h, w) -> (MASK_SIZE, MASK_SIZE) bool: the fifth of the image that the word attended to most."""
    rows, columns = (np.arange(MASK_SIZE) * side // MASK_SIZE for side in attention.shape)
    resampled = attention[rows][:, columns]
    mask: np.ndarray = resampled >= np.quantile(attention, 1 - OCCLUDED_SHARE)
    return mask


def changed_words(before: Caption, after: Caption) -> list[bool]:
    """For each word of the later caption, whether it is new."""
    old, new = ([word.text for word in caption.words] for caption in (before, after))
    changed = [True] * len(new)
    for block in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_matching_blocks():
        changed[block.b : block.b + block.size] = [False] * block.size
    return changed


def alternatives(captioner: ImageCaptioner, caption: Caption, index: int) -> list[tuple[str, str]]:
    """The most probable words at a place: (word with its probability, the caption's prefix that ends with it)."""
    before, tokenizer = [word.text for word in caption.words[:index]], captioner.tokenizer
    return [
        (f"{word} ({percent(probability)})", " ".join([*before, word]))
        for word, probability in caption.words[index].alternatives
        if tokenizer.knows(word)
    ]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def as_sentence(text: str) -> str:
    """A caption with a capital letter and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".") if text else ""


def html_snippet(name: str, text: str) -> str:
    """The HTML of an image with its alternative text."""
    return f'<img src="{html.escape(name)}" alt="{html.escape(text)}">'
