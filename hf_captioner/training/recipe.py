"""Training recipes: YAML files, read strictly into frozen dataclasses."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import yaml

from hf_captioner.config import CaptionerConfig, GenerationConfig, ValidatedConfig
from hf_captioner.errors import ConfigError
from hf_captioner.modeling.backbone import backbone_of
from hf_captioner.training.data_sets import DataSet

OBJECTIVES = ("cross_entropy", "self_critical")
RECIPES = Path(__file__).parent / "recipes"
"""Those of the package; which one is in use where none is given, default_recipe.py says."""


@dataclass(frozen=True)
class Stage(ValidatedConfig):
    """A stage of training with its own schedule; it starts from the best weights of the stage before."""

    epochs: int
    learning_rate: float
    """Peak rate of the decoder; warmed up linearly, then a cosine down to `final_lr_ratio` times it."""
    new_words_learning_rate: float | None = None
    """Peak rate of the rows of those words that the vocabulary grew by; None: the decoder's. With a gentle
    `learning_rate`, a captioner learns new words and forgets little."""
    final_lr_ratio: float = 0.0
    unfreeze_from: str | None = None
    """First trainable module of the encoder (`layer2`); None keeps the encoder frozen and trains on cached features."""
    encoder_learning_rate: float = 0.0
    augment: bool = False
    """Random resized crops, colour jitter, and flips of images whose captions name no side."""
    captions: int = 5
    """Captions of each image that an epoch trains on, chosen at random."""
    warmup: int = 100
    """Steps."""
    objective: str = "cross_entropy"
    """`cross_entropy` of the true captions, or `self_critical`: the CIDEr-D of sampled ones."""
    samples: int = 5
    """Captions sampled for each image (`self_critical`)."""
    temperature: float = 1.0
    """Sampling temperature, also of the loss (`self_critical`)."""
    bleu: float = 0.0
    """Weight of BLEU-4 beside CIDEr-D in the reward (`self_critical`)."""
    xe_weight: float = 0.0
    """Weight of the true captions' cross-entropy beside the reward (`self_critical`)."""

    def _check(self) -> None:
        self._require(self.epochs >= 1, "epochs", "at least 1")
        self._require(self.captions >= 1, "captions", "at least 1")
        self._require(self.warmup >= 0, "warmup", "at least 0")
        self._require(self.learning_rate > 0, "learning_rate", "more than 0")
        new_words = self.new_words_learning_rate
        self._require(new_words is None or new_words > 0, "new_words_learning_rate", "more than 0, or null")
        self._require(0 <= self.final_lr_ratio <= 1, "final_lr_ratio", "0 to 1")
        self._require(self.objective in OBJECTIVES, "objective", f"one of {', '.join(OBJECTIVES)}")
        self._require(self.samples >= 2, "samples", "at least 2")
        self._require(self.temperature > 0, "temperature", "more than 0")
        self._require(self.bleu >= 0, "bleu", "at least 0")
        self._require(self.xe_weight >= 0, "xe_weight", "at least 0")
        if self.unfreeze_from is None:
            self._require(self.encoder_learning_rate == 0, "encoder_learning_rate", "0 where unfreeze_from is not set")

    def __str__(self) -> str:
        """10 epochs, encoder from layer2 at 4e-05."""
        said = [f"{self.epochs} epoch{'s' * (self.epochs != 1)}", f"decoder at {self.learning_rate:g}"]
        said += [f"new words at {self.new_words_learning_rate:g}"] if self.new_words_learning_rate else []
        said.append(
            f"encoder from {self.unfreeze_from} at {self.encoder_learning_rate:g}"
            if self.unfreeze_from
            else "encoder frozen"
        )
        said += ["CIDEr-D of sampled captions as the reward"] if self.objective == "self_critical" else []
        return ", ".join(said)

    @property
    def reads_pixels(self) -> bool:
        """Whether the images themselves are needed, not only their cached features."""
        return self.unfreeze_from is not None or self.augment


@dataclass(frozen=True)
class Recipe(ValidatedConfig):
    """A training run without the paths of its weights, and mostly of its data."""

    stages: tuple[Stage, ...]
    model: dict[str, Any]
    """Fields of CaptionerConfig without `vocabulary_size` and `confidence`. A captioner that is trained further has its
    own, and takes only `dropout` from here."""
    generation: dict[str, Any]
    """Fields of GenerationConfig for validation and for the checkpoint."""
    min_count: int = 4
    """A word enters the vocabulary when the training captions hold it at least this often."""
    batch_size: int = 50
    """Images of a step, over all processes."""
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    """Largest norm of the gradient."""
    average: float = 0.0
    """Decay of the moving average of the weights, which is validated and saved; 0 saves the weights themselves."""
    patience: int = 3
    """A stage ends after this many epochs without a better validation CIDEr."""
    mixed_precision: str = "bf16"
    """`bf16` or `no`."""
    seed: int = 1
    workers: int = 0
    """Processes that read images; 0 reads them in the training process."""
    data: tuple[DataSet, ...] = ()
    """What is trained on, where the command line names no data; in the file, sources are relative to its folder."""

    def _check(self) -> None:
        self._require(len(self.stages) >= 1, "stages", "at least one stage")
        for name in ("min_count", "batch_size", "patience"):
            self._require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("weight_decay", "workers", "seed"):
            self._require(getattr(self, name) >= 0, name, "at least 0")
        self._require(self.clip_norm > 0, "clip_norm", "more than 0")
        self._require(0 <= self.label_smoothing < 1, "label_smoothing", "0 or more and less than 1")
        self._require(0 <= self.average < 1, "average", "0 or more and less than 1")
        self._require(self.mixed_precision in ("bf16", "no"), "mixed_precision", "bf16 or no")
        self.captioner_config(5)
        self.generation_config()

    def captioner_config(self, vocabulary_size: int) -> CaptionerConfig:
        """The configuration of the model that this recipe trains, with its encoder's own preprocessing where `model`
        says nothing of it."""
        encoder = CaptionerConfig(vocabulary_size, encoder=self.model.get("encoder", CaptionerConfig.encoder)).encoder
        try:
            return CaptionerConfig(vocabulary_size, **{**backbone_of(encoder).preprocessing(), **self.model})
        except TypeError as error:
            raise ConfigError(f"Recipe.model: {error}.") from error

    def generation_config(self) -> GenerationConfig:
        """The generation settings of the model that this recipe trains."""
        try:
            return GenerationConfig(**self.generation)
        except TypeError as error:
            raise ConfigError(f"Recipe.generation: {error}.") from error

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a YAML recipe; what it leaves out has the default. Raises ConfigError."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"Recipe {path}: {error}") from error
        recipe = cls.from_plain(values, str(path))
        return replace(recipe, data=tuple(data_set.beside(Path(path).parent) for data_set in recipe.data))

    @classmethod
    def from_plain(cls, values: Any, name: str) -> Self:
        """Build from what the YAML file `name` holds. Raises ConfigError."""
        if not isinstance(values, dict):
            raise ConfigError(f"Recipe {name} holds {type(values).__name__}; expected a mapping.")
        values = dict(values)
        data = values.pop("data", [])
        if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
            raise ConfigError(f"Recipe {name}: data is {data!r}; expected a list of mappings with the key source.")
        try:
            stages = tuple(Stage(**stage) for stage in values.pop("stages", ()))
            parts = {"model": values.pop("model", {}), "generation": values.pop("generation", {})}
            return cls(stages=stages, data=tuple(map(DataSet.from_dict, data)), **parts, **values)
        except TypeError as error:
            raise ConfigError(f"Recipe {name}: {error}.") from error
