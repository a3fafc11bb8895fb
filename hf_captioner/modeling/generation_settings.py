"""Generation settings, checked against the model that they are for: its words, and the memory that a search takes.

With K hypotheses an image (`num_hypotheses`), T words (`max_length`), A alternatives (`num_alternatives`), C captions
returned (`num_return_sequences`), V words in the vocabulary, N cells of the feature map, d the hidden size and b the
backward one, the search for an image's captions takes at most about

    K * (110 V + T * (12 N + 24 A + 48 b + 100)) + 32 N d + captions    bytes, with
    captions = C * T * (4 N + 300 A + 800)                              what comes out

The first part holds every hypothesis' probabilities and what is recorded of each step. More than MAX_SEARCH_BYTES is
refused; of several images as many are searched at once as fit.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hf_captioner.config import CaptionerConfig, GenerationConfig
from hf_captioner.errors import ConfigError
from hf_captioner.modeling.tokenizer import CaptionTokenizer

MAX_SEARCH_BYTES = 1 << 29
"""Of one search, whatever number of images it is for."""
MAX_RESULT_BYTES = 1 << 32
"""Of the captions of a list of images, which are all held at once."""


def override(generation_config: GenerationConfig, overrides: Mapping[str, Any]) -> GenerationConfig:
    """The settings with these fields changed; beams enough for the captions asked for where none are given.

    Raises TypeError for a field that there is not, ConfigError for values that make no sense.
    """
    fields = [field.name for field in dataclasses.fields(GenerationConfig)]
    unknown = sorted(overrides.keys() - set(fields))
    if unknown:
        raise TypeError(f"GenerationConfig has no {', '.join(unknown)}; it has the fields {', '.join(fields)}.")
    changes = dict(overrides)
    count = changes.get("num_return_sequences")
    if "num_beams" not in changes and isinstance(count, int) and count > generation_config.num_beams:
        changes["num_beams"] = count
    return dataclasses.replace(generation_config, **changes)


def check_words(tokenizer: CaptionTokenizer, generation_config: GenerationConfig) -> None:
    """Raise ConfigError for a prefix that no caption can begin with, and for a bad word that is none or several."""
    unknown = [word for word in generation_config.prefix.split() if not tokenizer.knows(word)]
    if unknown:
        names = ", ".join(map(repr, unknown[:5]))
        raise ConfigError(f"The model doesn't know {names} of the prefix. Try a more common word.")
    length = len(tokenizer.encode(generation_config.prefix))
    if length > generation_config.max_length:
        most = generation_config.max_length
        raise ConfigError(f"prefix has {length} words; expected at most max_length ({most}).")
    for word in generation_config.bad_words:
        if len(tokenizer.encode(word)) > 1:
            raise ConfigError(f"bad_words has {word[:100]!r}, which is more than one word; give each word by itself.")


def caption_bytes(generation_config: GenerationConfig, cells: int) -> int:
    """The most that the captions of one image take, by the formula above."""
    settings = generation_config
    return settings.num_return_sequences * settings.max_length * (4 * cells + 300 * settings.num_alternatives + 800)


def search_bytes(config: CaptionerConfig, generation_config: GenerationConfig, cells: int) -> int:
    """The most that the search for one image's captions takes, by the formula above."""
    backward = config.backward_hidden_size if config.decoder == "bilstm" else 0
    step = 12 * cells + 24 * generation_config.num_alternatives + 48 * backward + 100
    hypothesis = 110 * config.vocabulary_size + generation_config.max_length * step
    features = 32 * cells * config.hidden_size
    return generation_config.num_hypotheses * hypothesis + features + caption_bytes(generation_config, cells)


def check_memory(config: CaptionerConfig, generation_config: GenerationConfig, cells: int) -> None:
    """Raise ConfigError where the search for one image would take more than MAX_SEARCH_BYTES."""
    needed = search_bytes(config, generation_config, cells)
    if needed > MAX_SEARCH_BYTES:
        raise ConfigError(
            f"{_product(generation_config)} would take about {needed >> 20:,} MiB of memory for an image; "
            f"expected at most {MAX_SEARCH_BYTES >> 20:,} MiB: lower one of them."
        )


def check_results(generation_config: GenerationConfig, cells: int, images: int) -> None:
    """Raise ConfigError where the captions of this many images would take more than MAX_RESULT_BYTES."""
    needed = images * caption_bytes(generation_config, cells)
    if needed > MAX_RESULT_BYTES:
        raise ConfigError(
            f"{_product(generation_config)} x {images:,} images would take up to {needed >> 20:,} MiB of memory; "
            f"expected at most {MAX_RESULT_BYTES >> 20:,} MiB: give fewer images at a time, or use stream."
        )


def images_at_once(config: CaptionerConfig, generation_config: GenerationConfig, cells: int) -> int:
    """How many images are searched together."""
    return max(1, MAX_SEARCH_BYTES // search_bytes(config, generation_config, cells))


def _product(settings: GenerationConfig) -> str:
    kind = "num_return_sequences" if settings.do_sample else "num_beams"
    return (
        f"{kind} {settings.num_hypotheses} x max_length {settings.max_length} "
        f"x num_alternatives {settings.num_alternatives}"
    )
