"""What a training run starts from: ImageNet weights of the encoder, or a captioner that is trained further."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError, DataError, TokenizerError
from hf_captioner.hub.evaluation import Evaluation, TrainingSet
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.checkpointing import weights_digest
from hf_captioner.training.data import NAMELESS, Record, by_data_set
from hf_captioner.training.recipe import Recipe
from hf_captioner.training.vocabulary import NewWords, grow, grown_weights

RANDOM = "random"
"""The backbone of an encoder that starts from random weights."""
OVERRIDABLE = ("dropout",)
"""Fields of CaptionerConfig that a recipe may change in the captioner that it trains further."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Exactly one of the two is given."""

    backbone: str | None = None
    """Encoder weights: a safetensors file in its library's names, or the word torchvision or random."""
    init: str | None = None
    """A captioner to train further: its folder or Hub id."""

    def __post_init__(self) -> None:
        if (self.backbone is None) == (self.init is None):
            raise ConfigError("Training starts from either a backbone or a captioner; give one of --backbone, --init.")

    def captioner(self, recipe: Recipe, train: Sequence[Record]) -> tuple[ImageCaptioner, NewWords]:
        """The captioner on the CPU as training starts, the same in every process, and the words that its vocabulary
        grew by for the training captions; they are its last. Raises ConfigError and DataError."""
        torch.manual_seed(recipe.seed)
        sentences = [caption for record in train for caption in record.captions]
        if self.init is not None:
            return _further(recipe, self.init, sentences)
        try:
            tokenizer = CaptionTokenizer.build(sentences, recipe.min_count)
        except TokenizerError as error:
            advice = "Give more captions, a recipe with a smaller min_count, or --init in place of --backbone."
            raise DataError(f"{error} {advice}") from error
        captioner = ImageCaptioner(recipe.captioner_config(len(tokenizer)), tokenizer, recipe.generation_config())
        if self.backbone not in (None, RANDOM):
            captioner.encoder.load_backbone(self.backbone)
        return captioner, NewWords()

    def identity(self, captioner: ImageCaptioner) -> str:
        """What tells the weights that training starts from, but not what was measured of them."""
        if self.init is not None:
            return weights_digest(captioner.encoder, captioner.decoder)
        return RANDOM if self.backbone == RANDOM else weights_digest(captioner.encoder)

    def __str__(self) -> str:
        if self.init is None:
            return "random weights" if self.backbone == RANDOM else "ImageNet weights"
        if Path(self.init) == bundled_checkpoint():
            return "the captioner bundled with hf-captioner"
        # A card goes to the Hub, where a folder of this machine means nothing.
        return "another captioner" if Path(self.init).is_dir() else f"the captioner {self.init}"


def _further(recipe: Recipe, init: str, sentences: Sequence[str]) -> tuple[ImageCaptioner, NewWords]:
    """The captioner `init`, as its own config says, with the words that it lacks of the sentences and the recipe's
    generation settings; the log tells the rest."""
    given = ImageCaptioner.from_pretrained(init, device="cpu", backend="torch")
    found = given.config.to_dict()
    changes = {name: recipe.model[name] for name in OVERRIDABLE if name in recipe.model}
    differ = [name for name in recipe.model if name not in changes and _plain(recipe.model[name]) != found[name]]
    if differ and PartialState().is_main_process:
        pairs = ", ".join(f"{name} stays {found[name]!r} (recipe: {recipe.model[name]!r})" for name in differ)
        logger.info("The recipe's `model` is not %s's, which is trained further as it is: %s.", init, pairs)
    try:
        tokenizer, new_words = grow(given.tokenizer, sentences, recipe.min_count)
    except TokenizerError as error:
        raise DataError(f"{error} Give a recipe with a larger min_count.") from error
    changes |= {"vocabulary_size": len(tokenizer), "confidence": None}
    config = dataclasses.replace(given.config, **changes)
    generation_config = dataclasses.replace(given.generation_config, **recipe.generation)
    captioner = ImageCaptioner(config, tokenizer, generation_config)
    captioner.encoder.load_state_dict(given.encoder.state_dict())
    captioner.decoder.load_state_dict(grown_weights(given.decoder.state_dict(), tokenizer, sentences))
    captioner.weights_license, captioner.evaluation = given.weights_license, given.evaluation
    return captioner, new_words


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def training_record(captioner: ImageCaptioner, origin: Origin, train: Sequence[Record]) -> Evaluation:
    """What the checkpoint says of its training, a data set that it goes on with once; what was measured of earlier
    weights is dropped."""
    own = [
        TrainingSet(records[0].card_name, len(records), sum(len(record.captions) for record in records))
        for records in by_data_set(train).values()
    ]
    before = captioner.evaluation
    named = {data_set.name: data_set for data_set in before.trained_on if data_set.name != NAMELESS}
    added = [data_set for data_set in own if not _same(data_set, named.get(data_set.name))]
    return Evaluation((*before.trained_on, *added), str(origin), language=before.language)


def _same(one: TrainingSet, other: TrainingSet | None) -> bool:
    """Whether they are the same images, described or not."""
    return other is not None and (one.images, one.captions) == (other.images, other.captions)
