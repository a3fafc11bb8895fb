"""What a captioner is, how it searches, and what was measured of it: frozen dataclasses, validated, strict to and from
JSON."""

import dataclasses
import json
import sys
import types
import typing
from dataclasses import dataclass
from typing import Any, Self

from hf_captioner.errors import ConfigError

DEFAULT_LAYERS = {
    "resnet50": "layer4",
    "resnet18": "layer4",
    "vgg16": "features.30",
    "inception_v3": "Mixed_7c",
}
"""The node of each torchvision backbone whose output is its last grid."""

DECODERS = ("bilstm", "lstm", "gru")
ATTENTIONS = ("dot", "none")
OCCLUDED_REGIONS = ("most attended fifth", "random fifth", "least attended fifth")
"""Of an image, hidden one after the other to test its attention."""


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
    if hint is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is hint


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


class ValidatedConfig:
    """Type checking at construction and a JSON form in which every field stands exactly once."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, list):
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            if not _fits(value, hints[field.name]):
                raise ConfigError(
                    f"{type(self).__name__}.{field.name} is {value!r}; expected {_spelled(hints[field.name])}."
                )
        self._check()

    def _check(self) -> None:
        """Raise ConfigError for values of the right type that make no sense."""

    def _require(self, condition: bool, name: str, expected: str) -> None:
        if not condition:
            raise ConfigError(f"{type(self).__name__}.{name} is {getattr(self, name)!r}; expected {expected}.")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Build from `to_dict`'s form. Raises ConfigError that names unknown and missing keys."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} expects a JSON object; found {type(values).__name__}.")
        hints = typing.get_type_hints(cls)
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(names))
        missing = [name for name in names if name not in values]
        if unknown or missing:
            problems = [f"unknown keys {unknown}"] * bool(unknown) + [f"missing keys {missing}"] * bool(missing)
            raise ConfigError(f"{cls.__name__} has {' and '.join(problems)}; expected exactly {names}.")
        built = {}
        for name, value in values.items():
            nested = [hint for hint in (hints[name], *typing.get_args(hints[name])) if is_validated(hint)]
            built[name] = nested[0].from_dict(value) if nested and value is not None else value
        return cls(**built)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build from JSON text. Raises ConfigError for anything but a complete, valid configuration."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{cls.__name__} is not JSON: {error}.") from error
        return cls.from_dict(values)


def is_validated(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, ValidatedConfig)


@dataclass(frozen=True)
class GenerationConfig(ValidatedConfig):
    """How a caption is searched. Each field is a keyword of `ImageCaptioner.caption` and a flag of the command line."""

    num_beams: int = 3
    """Hypotheses kept for each image; 1 is greedy search. Ignored when sampling."""
    num_return_sequences: int = 1
    """Captions returned for each image, best first; at most `beams` unless sampling."""
    length_penalty: float = 0.7
    """Exponent of the length by which a finished hypothesis' log-probability is divided; 0 sums, 1 averages."""
    min_length: int = 1
    """Fewest words in a caption."""
    max_length: int = 20
    """Most words in a caption; one that has not ended by then is cut there."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this many words occurs twice; 0 allows every repetition."""
    prefix: str = ""
    """The caption's first words, given."""
    bad_words: tuple[str, ...] = ()
    """Words that must not occur."""
    num_beam_groups: int = 1
    """Groups of diverse beam search (Vijayakumar et al. 2016); must divide `beams`."""
    diversity_penalty: float = 0.5
    """What a group pays, in log-probability, for each earlier group's choice of the same word at the same step."""
    do_sample: bool = False
    """Draw words at random instead of searching for the likeliest caption."""
    temperature: float = 1.0
    """Sampling: log-probabilities are divided by it before drawing."""
    top_k: int = 0
    """Sampling: draw from the k likeliest words; 0 means all."""
    top_p: float = 1.0
    """Sampling: draw from the fewest words whose probabilities add up to at least this."""
    seed: int = 0
    """Sampling: the same seed, image and settings draw the same captions."""
    num_alternatives: int = 5
    """Likeliest words reported at each place of the caption."""

    def _check(self) -> None:
        for name in ("num_beams", "num_return_sequences", "max_length", "num_beam_groups"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in (
            "no_repeat_ngram_size",
            "top_k",
            "seed",
            "num_alternatives",
            "diversity_penalty",
            "length_penalty",
        ):
            self._require(getattr(self, name) >= 0, name, "at least 0")
        for name in (
            "num_beams",
            "num_return_sequences",
            "max_length",
            "num_alternatives",
            "diversity_penalty",
            "length_penalty",
        ):
            self._require(getattr(self, name) <= 10_000, name, "at most 10,000")
        self._require(self.seed < 1 << 63, "seed", f"less than {1 << 63}")
        self._require(0 <= self.min_length <= self.max_length, "min_length", f"0 to max_length ({self.max_length})")
        self._require(
            self.num_beams % self.num_beam_groups == 0, "num_beam_groups", f"a divisor of num_beams ({self.num_beams})"
        )
        self._require(self.temperature > 0, "temperature", "more than 0")
        self._require(1e-6 <= self.temperature <= 1e6, "temperature", "0.000001 to 1,000,000")
        self._require(0 < self.top_p <= 1, "top_p", "more than 0 and at most 1")
        if not self.do_sample:
            self._require(
                self.num_return_sequences <= self.num_beams,
                "num_return_sequences",
                f"at most num_beams ({self.num_beams})",
            )


@dataclass(frozen=True)
class Results(ValidatedConfig):
    """Measured scores, carried with the weights into the model card."""

    dataset: str
    split: str
    scores: dict[str, float]
    """Metric name as `metrics.py` spells it -> value as a fraction (CIDEr 0.52, not 52)."""
    tokenization: str
    command: str
    """What was run to measure them."""


@dataclass(frozen=True)
class Calibration(ValidatedConfig):
    """The numbers of a caption's confidence (see `confidence.py`), fitted on dev, and how well it did when fitted on
    each half and measured on the other."""

    intercept: float
    slope: float
    """Of the square of the geometric mean of the probabilities of the caption's words."""
    ood_threshold: float
    """The distance from the training images at which the confidence is halved."""
    ood_temperature: float
    error: float
    """Expected calibration error, 0 to 1."""
    auroc_correct: float
    """Area under the ROC curve: captions better than the median one against the others."""
    auroc_ood: float
    """The same: dev images against images unlike them."""
    predicted: tuple[float, ...]
    """Reliability curve: mean confidence of each bin ..."""
    observed: tuple[float, ...]
    """... how many of its captions were better than the median one, 0 to 1 ..."""
    captions: tuple[int, ...]
    """... and how many there were."""

    def _check(self) -> None:
        self._require(self.ood_temperature > 0, "ood_temperature", "more than 0")
        bins = len(self.predicted)
        self._require(len(self.observed) == bins, "observed", f"as many numbers as predicted ({bins})")
        self._require(len(self.captions) == bins, "captions", f"as many numbers as predicted ({bins})")


@dataclass(frozen=True)
class Occlusion(ValidatedConfig):
    """Is the attention true: what happens to content words when a fifth of the image is hidden."""

    images: int
    words: int
    baseline: float
    """Mean probability of a content word on the whole image."""
    occluded: dict[str, float]
    """The same with a fifth hidden: which fifth -> mean probability."""
    changed: dict[str, float]
    """Which fifth -> how many of the captions became another, 0 to 1."""
    mean_image: str
    """The caption of the mean of all images."""
    mean_image_cider: float
    """CIDEr of saying it of each of them, as a fraction."""

    def _check(self) -> None:
        for name in ("occluded", "changed"):
            self._require(
                tuple(getattr(self, name)) == OCCLUDED_REGIONS,
                name,
                f"a number for each of {', '.join(OCCLUDED_REGIONS)}",
            )


@dataclass(frozen=True)
class CaptionerConfig(ValidatedConfig):
    """Everything about a captioner but its weights and its words; `config.json` is exactly these fields."""

    vocabulary_size: int
    encoder: str = "resnet50"
    encoder_layer: str | None = None
    """The torchvision module whose output is the grid; None becomes the encoder's last grid (`DEFAULT_LAYERS`)."""
    image_size: int = 224
    """S: every image is resized to S x S pixels, nothing cropped."""
    image_mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] = (0.229, 0.224, 0.225)
    decoder: str = "bilstm"
    attention: str = "dot"
    """`dot`, or `none`: the grid's mean is the initial state and nothing else."""
    hidden_size: int = 512
    """d: embeddings, recurrent state, keys and values of the grid."""
    backward_hidden_size: int = 256
    """State of the cell that reads the prefix backward (`bilstm` only)."""
    tie_embeddings: bool = True
    """The output layer's weights are the word embeddings."""
    dropout: float = 0.35
    search: GenerationConfig = dataclasses.field(default_factory=GenerationConfig)
    """The checkpoint's own search, used where the caller says nothing else."""
    results: Results | None = None
    calibration: Calibration | None = None
    """None where no confidence was calibrated."""
    occlusion: Occlusion | None = None

    def _check(self) -> None:
        self._require(self.encoder in DEFAULT_LAYERS, "encoder", f"one of {sorted(DEFAULT_LAYERS)}")
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
            object.__setattr__(self, "encoder_layer", DEFAULT_LAYERS[self.encoder])
