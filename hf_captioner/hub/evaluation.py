"""What was measured of a checkpoint, `evaluation.json`: all of it optional, and the card says nothing else."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_captioner.config import ValidatedConfig

OCCLUDED_REGIONS = ("most attended fifth", "random fifth", "least attended fifth")
"""The regions that are occluded in turn to test the attention."""
FEW_IMAGES = 100
"""What was measured on fewer is no result to compare: the card warns of it, and its metadata leaves it out."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""OWNER/NAME."""


@dataclass(frozen=True)
class TrainingSet(ValidatedConfig):
    """A data set that the weights were trained on."""

    name: str
    images: int
    captions: int
    description: str = ""
    """What it shows, who made it, its terms; a sentence for the card."""


@dataclass(frozen=True)
class Scores(ValidatedConfig):
    """Caption metrics on one split of one data set, under the checkpoint's own generation settings."""

    dataset: str
    split: str
    metrics: dict[str, float]
    """Metric name as `training/metrics.py` spells it -> value as a fraction (CIDEr 0.52, not 52)."""
    tokenization: str
    command: str
    """What was run to measure them."""
    images: int = 0
    """0 where an older version did not record it."""


@dataclass(frozen=True)
class Calibration(ValidatedConfig):
    """How well the confidence does: fitted on each half of the validation images and measured on the other."""

    error: float
    """Expected calibration error, 0 to 1."""
    auroc_correct: float
    """Area under the ROC curve: captions better than the median one against the others."""
    auroc_ood: float
    """The same: validation images against images unlike them."""
    predicted: tuple[float, ...]
    """Reliability curve: mean confidence of each bin ..."""
    observed: tuple[float, ...]
    """... the share of its captions that were better than the median one, 0 to 1 ..."""
    captions: tuple[int, ...]
    """... and how many there were."""
    ood_images: int = 0
    """Images unlike them; 0 where an older version did not record it."""

    def _check(self) -> None:
        bins = len(self.predicted)
        self._require(len(self.observed) == bins, "observed", f"as many numbers as predicted ({bins})")
        self._require(len(self.captions) == bins, "captions", f"as many numbers as predicted ({bins})")


@dataclass(frozen=True)
class Occlusion(ValidatedConfig):
    """Does attention mark the evidence: the probability of content words when a fifth of the image is occluded."""

    images: int
    words: int
    baseline: float
    """Mean probability of a content word on the whole image."""
    occluded: dict[str, float]
    """Occluded region -> mean probability."""
    changed: dict[str, float]
    """Occluded region -> share of the captions that became another, 0 to 1."""
    mean_image: str
    """The caption of the mean of all images."""
    mean_image_cider: float
    """CIDEr of saying it of each of them, as a fraction."""

    def _check(self) -> None:
        for name in ("occluded", "changed"):
            wanted = tuple(getattr(self, name)) == OCCLUDED_REGIONS
            self._require(wanted, name, f"a number for each of {', '.join(OCCLUDED_REGIONS)}")


@dataclass(frozen=True)
class Habits(ValidatedConfig):
    """Words said too often or too seldom, and men said for women; counted by `training/bias_report.py`."""

    images: int
    words_said: int
    """Different words in the captions."""
    words_written: int
    """Different words in the references."""
    said: dict[str, float]
    """Word -> how often the captions say it; the words that are furthest off."""
    written: dict[str, float]
    """The same words -> how often one person writes them of these images."""
    men: tuple[int, ...] = ()
    """Images where people agree on men or boys only; of these, said so; said women or girls instead."""
    women: tuple[int, ...] = ()
    """The other way round."""

    def _check(self) -> None:
        self._require(self.said.keys() == self.written.keys(), "written", "the words of said")
        for name in ("men", "women"):
            self._require(len(getattr(self, name)) in (0, 3), name, "three counts or none")


@dataclass(frozen=True)
class Evaluation(ValidatedConfig):
    """Everything that was measured of a checkpoint or recorded when it was trained."""

    trained_on: tuple[TrainingSet, ...] = ()
    initialized_from: str | None = None
    """What the training began with: a checkpoint's Hub id, or a description of the encoder's weights."""
    scores: tuple[Scores, ...] = ()
    calibration: Calibration | None = None
    occlusion: Occlusion | None = None
    habits: Habits | None = None
    limits: tuple[str, ...] = ()
    """Sentences for the card: what the captioner gets wrong."""
    language: str | None = None
    """Code of the captions' language (`de`) where it is not English."""

    @property
    def base_model(self) -> str | None:
        """Hub id of the captioner that was trained further; None where there is none, or it has no id."""
        name = (self.initialized_from or "").removeprefix("the captioner ")
        return name if HUB_ID.fullmatch(name) else None

    def to_dict(self) -> dict[str, Any]:
        """The fields that hold something."""
        return {name: value for name, value in super().to_dict().items() if value not in (None, ())}

    def with_scores(self, scores: Scores) -> tuple[Scores, ...]:
        """The scores, with these in place of earlier ones of the same data set and split."""
        kept = tuple(old for old in self.scores if (old.dataset, old.split) != (scores.dataset, scores.split))
        return (*kept, scores)


def without_paths(command: str, placeholders: Mapping[str, str] | None = None) -> str:
    """A command without the places of the machine on which it ran, which are nobody else's business.

    placeholders: argument -> what stands for it; besides, whatever looks like a path becomes PATH.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return "hf-captioner"
    return shlex.join(_without_path(word, placeholders or {}) for word in words)


def _without_path(word: str, placeholders: Mapping[str, str]) -> str:
    flag, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
    if value in placeholders:
        return f"{flag}{equals}{placeholders[value]}"
    looks_like_one = value.startswith(("/", "~", ".")) or "\\" in value or value.count("/") > 1
    return f"{flag}{equals}PATH" if looks_like_one else word
