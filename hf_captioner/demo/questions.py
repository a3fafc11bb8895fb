"""What the page asks of a captioner, and what it gets: plain functions, without the server."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from hf_captioner import Caption, ConfigError, ImageCaptioner, ImageError
from hf_captioner.demo.photo import image_error, pixels_of, read_photo, thumbnail
from hf_captioner.demo.recaption import MASK_SIZE, CaptionRequest, first_caption, recaption
from hf_captioner.images import preprocess, read_pixels, source_name
from hf_captioner.modeling.generation import StoppingCriteria

Work = Callable[[StoppingCriteria], dict[str, Any]]
"""What answers a question; it ends with GenerationStopped once nobody waits for it."""


def ask_photo(captioner: ImageCaptioner, content: bytes) -> Work:
    """A file's content -> `photo` (see `Photo.to_dict`) and `captions`."""

    def work(stopping_criteria: StoppingCriteria) -> dict[str, Any]:
        photo = read_photo(content, captioner.config)
        pixels = preprocess(photo.model_input, captioner.config)
        caption = first_caption(captioner, pixels, stopping_criteria)
        return {"photo": photo.to_dict(), "captions": [as_dict(captioner, caption)]}

    return work


def ask_again(captioner: ImageCaptioner, content: bytes) -> Work:
    """JSON with `input` (of a photo), `covered` (cells, row by row, or none), `words` (of the first caption) and the
    fields of CaptionRequest -> `captions`. Raises ConfigError, ImageError for what is not so."""
    try:
        asked = json.loads(content)
        model_input, cells, words = str(asked.pop("input")), asked.pop("covered"), int(asked.pop("words"))
        request, covered = CaptionRequest(**asked), covered_cells(cells)
        if not 0 <= words <= captioner.generation_config.max_length:
            raise ValueError("the first caption has no such number of words")
    except ConfigError:
        raise
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise ConfigError(
            "The question is not as the page asks it; expected JSON with input, covered, words and what is requested."
        ) from error

    def work(stopping_criteria: StoppingCriteria) -> dict[str, Any]:
        pixels = pixels_of(model_input, captioner.config)
        captions = recaption(captioner, pixels, request, covered, words, stopping_criteria=stopping_criteria)
        return {"captions": [as_dict(captioner, caption) for caption in captions]}

    return work


def ask_row(captioner: ImageCaptioner, content: bytes) -> Work:
    """A file's content -> `thumbnail` (a data URL) and `caption`, without the attention maps."""

    def work(stopping_criteria: StoppingCriteria) -> dict[str, Any]:
        caption = first_caption(captioner, read_pixels(content, captioner.config), stopping_criteria)
        return {"thumbnail": thumbnail(content), "caption": as_dict(captioner, caption, attention=False)}

    return work


def ask_caption(captioner: ImageCaptioner, content: bytes) -> Work:
    """A file's content -> `caption`: of a camera's frame, or of a model that is compared."""

    def work(stopping_criteria: StoppingCriteria) -> dict[str, Any]:
        caption = first_caption(captioner, read_pixels(content, captioner.config), stopping_criteria)
        return {"caption": as_dict(captioner, caption)}

    return work


def covered_cells(cells: Any) -> np.ndarray | None:
    """The cells of the brush, row by row -> (MASK_SIZE, MASK_SIZE) bool; None where none is covered."""
    if not isinstance(cells, list) or len(cells) not in (0, MASK_SIZE**2) or any(cell not in (0, 1) for cell in cells):
        raise ValueError(f"covered has no {MASK_SIZE} x {MASK_SIZE} cells")
    covered = np.array(cells, bool)
    return covered.reshape(MASK_SIZE, MASK_SIZE) if covered.any() else None


def as_dict(captioner: ImageCaptioner, caption: Caption, *, attention: bool = True) -> dict[str, Any]:
    """`Caption.to_dict`; among a word's alternatives only those that a caption can go on with."""
    plain = caption.to_dict(attention=attention)
    for word in plain["words"]:
        word["alternatives"] = [each for each in word["alternatives"] if captioner.tokenizer.knows(each[0])]
    return plain


def sentence(error: ImageError | ConfigError) -> str:
    """What a visitor is told of it."""
    return image_error(error, source_name(b"")) if isinstance(error, ImageError) else str(error)
