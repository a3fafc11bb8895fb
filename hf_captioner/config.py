"""What a captioner is and how it generates: frozen dataclasses that validate themselves, to and from versioned JSON."""

import dataclasses
import json
import re
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypedDict

from hf_captioner.errors import ConfigError, shown

FORMAT = 1
"""The version of a checkpoint's JSON files that this code writes; once it was published, a new field makes the next."""
MODEL_TYPE = "hf-captioner"

DEFAULT_LAYERS = {
    "resnet50": "layer4",
    "resnet18": "layer4",
    "vgg16": "features.30",
    "inception_v3": "Mixed_7c",
}
"""The layer of each torchvision encoder whose output is its last feature map."""
TIMM = "timm:"
"""What an encoder's name begins with that is timm's."""

DECODERS = ("bilstm", "lstm", "gru")
ATTENTIONS = ("dot", "none")


MAX_PREFIX_CHARACTERS = 2000
MAX_BAD_WORDS = 1000


class ValidatedConfig:
    """Type checks at construction, and a JSON form in which a missing key has its default."""

    header: ClassVar[dict[str, Any]] = {"format": FORMAT}
    """What stands in a file before the fields."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            if not _fits(value, hints[field.name]):
                raise ConfigError(
                    f"{type(self).__name__}.{field.name} is {shown(value)}; expected {_spelled(hints[field.name])}."
                )
        self._check()

    def _check(self) -> None:
        """Raise ConfigError for values of the right type that make no sense."""

    def _require(self, condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise ConfigError(f"{type(self).__name__}.{name} is {shown(getattr(self, name))}; expected {expected}.")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Any, *, written_by: int = FORMAT) -> Self:
        """Build from `to_dict`'s form; a missing key has its default.

        written_by: the format of the file that the values stand in. Raises ConfigError for an unknown key, for a
        missing one without a default, and for values that make no sense.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} expects a JSON object; found {type(values).__name__}.")
        hints, fields = typing.get_type_hints(cls), dataclasses.fields(cls)  # type: ignore[arg-type]
        unknown = sorted(set(values) - {field.name for field in fields})
        if unknown and written_by > FORMAT:
            raise ConfigError(
                f"{cls.__name__} has {_shown_names(unknown)}, written by a newer hf-captioner "
                f"(format {written_by}, this one reads up to {FORMAT}); upgrade: pip install -U hf-captioner"
            )
        if unknown:
            known = ", ".join(field.name for field in fields)
            raise ConfigError(f"{cls.__name__} has no {_shown_names(unknown)}; it has the keys {known}.")
        required = [field.name for field in fields if not _has_default(field) and field.name not in values]
        if required:
            raise ConfigError(f"{cls.__name__} lacks {', '.join(required)}; every other key may be left out.")
        return cls(**{name: _built(value, hints[name], written_by) for name, value in values.items()})

    def to_json(self) -> str:
        return json.dumps({**self.header, **self.to_dict()}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build from JSON text, as `to_json` or an older or newer version of it wrote it. Raises ConfigError."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{cls.__name__} is not JSON: {error}.") from error
        return cls.from_file(values)

    @classmethod
    def from_file(cls, values: Any) -> Self:
        """Build from what a JSON file holds: the fields, and before them the format. Raises ConfigError."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} expects a JSON object; found {type(values).__name__}.")
        written_by = values.get("format", FORMAT)
        if type(written_by) is not int or written_by < 1:
            raise ConfigError(f"{cls.__name__} has the format {written_by!r}; expected a whole number from 1 on.")
        fields = {name: value for name, value in values.items() if name not in cls.header}
        return cls.from_dict(fields, written_by=written_by)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    if origin is dict:
        kind = typing.get_args(hint)[1]
        return isinstance(value, dict) and all(isinstance(k, str) and _fits(v, kind) for k, v in value.items())
    if hint is Any:
        return True
    if hint is str:
        return type(value) is str and _is_unicode(value)
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is hint


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON, and the bytes of a command line, also make halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown_names(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(shown, names[:5])) + more


def _spelled(hint: Any) -> str:
    if hint is str:
        return "Unicode text"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _has_default(field: Any) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _built(value: Any, hint: Any, written_by: int) -> Any:
    """A JSON value as the type hint wants it: nested configs are built, by themselves or in a tuple."""
    nested = next((kind for kind in (hint, *typing.get_args(hint)) if is_validated(kind)), None)
    if nested is None or value is None:
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        return tuple(nested.from_dict(item, written_by=written_by) for item in value)
    return nested.from_dict(value, written_by=written_by)


def is_validated(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, ValidatedConfig)


@dataclass(frozen=True)
class GenerationConfig(ValidatedConfig):
    """How captions are generated; `generation_config.json`.

    Each field is a keyword of `ImageCaptioner.caption` and a flag of the command line.
    """

    num_beams: int = 3
    """Hypotheses kept for each image; 1 is greedy search. Ignored when sampling."""
    num_return_sequences: int = 1
    """Captions generated for each image; at most `num_beams` unless sampling."""
    length_penalty: float = 0.7
    """Exponent of the length that divides a finished hypothesis' log-probability; 0 sums, 1 averages."""
    min_length: int = 1
    """Fewest words of a caption."""
    max_length: int = 20
    """Most words of a caption; one that has not ended by then is cut there."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this many words occurs twice; 0 allows every repetition."""
    prefix: str = ""
    """The first words of the caption."""
    bad_words: tuple[str, ...] = ()
    """Words that do not occur in the caption; a single word may be given as it is."""
    num_beam_groups: int = 1
    """Groups of diverse beam search (Vijayakumar et al. 2016); a divisor of `num_beams`."""
    diversity_penalty: float = 0.5
    """Log-probability penalty for each earlier group that chose this word at this step."""
    do_sample: bool = False
    """Sample words instead of searching for the most probable caption."""
    temperature: float = 1.0
    """Sampling: divides the log-probabilities."""
    top_k: int = 0
    """Sampling: keep the k most probable words; 0 keeps all."""
    top_p: float = 1.0
    """Sampling: keep the fewest words whose probabilities add up to at least this."""
    seed: int = 0
    """Sampling: the same seed, image and settings give the same captions."""
    num_alternatives: int = 5
    """Most probable words reported for each place of the caption, of those that may stand in it."""

    bounds: ClassVar[dict[str, tuple[int, int]]] = {
        "num_beams": (1, 100),
        "num_return_sequences": (1, 100),
        "num_beam_groups": (1, 100),
        "max_length": (1, 200),
        "num_alternatives": (0, 100),
        "no_repeat_ngram_size": (0, 200),
        "length_penalty": (0, 10),
        "diversity_penalty": (0, 100),
        "top_k": (0, 1_000_000),
        "seed": (0, (1 << 63) - 1),
    }
    """Least and largest value of each field that has both; what they may come to together is in
    `modeling/generation_settings.py`."""

    def __post_init__(self) -> None:
        if isinstance(self.bad_words, str):
            object.__setattr__(self, "bad_words", (self.bad_words,))
        super().__post_init__()

    @property
    def num_hypotheses(self) -> int:
        """K: captions that are written side by side for each image."""
        return self.num_return_sequences if self.do_sample else self.num_beams

    def _check(self) -> None:
        for name, (least, most) in self.bounds.items():
            self._require(least <= getattr(self, name) <= most, name, f"{least} to {most:,}")
        self._require(
            len(self.prefix) <= MAX_PREFIX_CHARACTERS, "prefix", f"at most {MAX_PREFIX_CHARACTERS:,} characters"
        )
        self._require(len(self.bad_words) <= MAX_BAD_WORDS, "bad_words", f"at most {MAX_BAD_WORDS:,} words")
        self._require(0 <= self.min_length <= self.max_length, "min_length", f"0 to max_length ({self.max_length})")
        divides = self.num_beams % self.num_beam_groups == 0
        self._require(divides, "num_beam_groups", f"a divisor of num_beams ({self.num_beams})")
        self._require(self.temperature > 0, "temperature", "more than 0")
        self._require(1e-6 <= self.temperature <= 1e6, "temperature", "0.000001 to 1,000,000")
        self._require(0 < self.top_p <= 1, "top_p", "more than 0 and at most 1")
        if not self.do_sample:
            enough = self.num_return_sequences <= self.num_beams
            self._require(enough, "num_return_sequences", f"at most num_beams ({self.num_beams})")


class GenerationOptions(TypedDict, total=False):
    """The fields of GenerationConfig as keywords, for type checkers."""

    num_beams: int
    num_return_sequences: int
    length_penalty: float
    min_length: int
    max_length: int
    no_repeat_ngram_size: int
    prefix: str
    bad_words: str | Sequence[str]
    num_beam_groups: int
    diversity_penalty: float
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    seed: int
    num_alternatives: int


@dataclass(frozen=True)
class ConfidenceConfig(ValidatedConfig):
    """The fitted numbers of `modeling/confidence.py`; its tensors are among the weights."""

    intercept: float
    slope: float
    """Of the square of the geometric mean of the word probabilities."""
    ood_threshold: float
    """Distance from the training images at which the confidence is halved."""
    ood_temperature: float
    """Distance over which it falls there."""

    def _check(self) -> None:
        self._require(self.ood_temperature > 0, "ood_temperature", "more than 0")


@dataclass(frozen=True)
class CaptionerConfig(ValidatedConfig):
    """The architecture and the preprocessing; `config.json`."""

    header: ClassVar[dict[str, Any]] = {"model_type": MODEL_TYPE, "format": FORMAT}

    vocabulary_size: int
    encoder: str = "resnet50"
    encoder_layer: str | None = None
    """The encoder's module whose output is the feature map; None is its last one (`DEFAULT_LAYERS`)."""
    image_size: int = 224
    """S: every image is resized to S x S pixels, nothing is cropped."""
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    decoder: str = "bilstm"
    attention: str = "dot"
    """`dot`, or `none`: the mean of the feature map is the initial state and nothing else."""
    hidden_size: int = 512
    """d: embeddings, recurrent state, keys and values of the feature map."""
    backward_hidden_size: int = 256
    """State of the cell that reads the prefix backward (`bilstm` only)."""
    tie_embeddings: bool = True
    """The output layer's weights are the word embeddings."""
    dropout: float = 0.35
    confidence: ConfidenceConfig | None = None
    """None where no confidence was calibrated."""

    def _check(self) -> None:
        known = self.encoder in DEFAULT_LAYERS or re.fullmatch(f"{TIMM}[a-z0-9_]+", self.encoder) is not None
        self._require(
            known, "encoder", f"one of {sorted(DEFAULT_LAYERS)}, or {TIMM}NAME with a name of timm.list_models()"
        )
        self._require(self.decoder in DECODERS, "decoder", f"one of {list(DECODERS)}")
        self._require(self.attention in ATTENTIONS, "attention", f"one of {list(ATTENTIONS)}")
        for name in ("hidden_size", "backward_hidden_size"):
            self._require(1 <= getattr(self, name) <= 8192, name, "1 to 8192")
        self._require(5 <= self.vocabulary_size <= 1_000_000, "vocabulary_size", "5 to 1,000,000")
        self._require(32 <= self.image_size <= 2048, "image_size", "32 to 2048 pixels")
        self._require(0 <= self.dropout < 1, "dropout", "0 or more and less than 1")
        mean, std = self.image_mean, self.image_std
        self._require(len(mean) == 3 and max(map(abs, mean)) <= 100, "image_mean", "three numbers from -100 to 100")
        self._require(len(std) == 3 and min(std) >= 1e-4 and max(std) <= 100, "image_std", "three from 0.0001 to 100")
        if self.encoder_layer is None:
            object.__setattr__(self, "encoder_layer", DEFAULT_LAYERS.get(self.encoder))
