"""What `hf-captioner train` does once the weights are trained: it tunes, calibrates, tests and scores the captioner.

Each step works on the validation images and writes into the checkpoint what it found, whole or not at all. What is
done stands in a file, so that a run that was stopped repeats only the step that it was in.
"""

import dataclasses
import json
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_captioner.atomic import write_text
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import GenerationConfig
from hf_captioner.errors import ConfigError, DataError
from hf_captioner.hub.card import update_evaluation
from hf_captioner.hub.evaluation import FEW_IMAGES, OCCLUDED_REGIONS
from hf_captioner.training.calibrate import calibrate, keep_confidence, ood_images
from hf_captioner.training.data import Record, first_of_each
from hf_captioner.training.evaluate import caption_records, mean_scores, score_each, with_scores
from hf_captioner.training.occlusion import TESTED_IMAGES, measure_attention
from hf_captioner.training.rows import counted, read_text
from hf_captioner.training.time_left import duration
from hf_captioner.training.tune_generation import TUNED, tune, with_settings

FEWEST_TO_TUNE = FEW_IMAGES
"""Validation images; on fewer the best setting is chance, and the captioner's own is better."""
PASSES = 50
"""The steps here take at most about as long as it takes to caption and score the validation images so many times; on
12 images it was 27 times, in which loading the captioner counts most."""
EachScores = dict[str, dict[str, float]]
"""Metric -> score, of each data set by its name."""
COMPARED = ("BLEU-4", "ROUGE-L", "CIDEr")
"""The metrics that are told of the captioner before and after."""

logger = logging.getLogger(__name__)


class Notes:
    """What is done and what was found, in a JSON file; another run's is not taken for this one's."""

    def __init__(self, file: Path, run: dict[str, str]) -> None:
        self.file = file
        self.found: dict[str, Any] = json.loads(read_text(file)) if file.exists() else {}
        if self.found.get("run") != run:
            self.found = {"run": run}

    def keep(self, name: str, measure: Callable[[], Any]) -> Any:
        """What `measure` returns, of which JSON can be made; it is called once in all the processes of a run."""
        if name not in self.found:
            self.found[name] = measure()
            write_text(self.file, json.dumps(self.found, indent=1))
        return self.found[name]


@dataclasses.dataclass(frozen=True)
class Finish:
    """The steps that follow the training of one captioner."""

    folder: Path
    """The checkpoint, which they change."""
    notes: Notes
    train: Sequence[Record]
    validation: Sequence[Record]
    device: str
    command: str
    """What the card says was run."""

    def before(self, init: str) -> float:
        """Score the captioner that training begins with; the seconds that the steps after the training will take."""

        def measure() -> dict[str, Any]:
            began = time.perf_counter()
            captioner = ImageCaptioner.from_pretrained(init, device=self.device, backend="torch")
            scores = self._scores(captioner, meteor=False)
            logger.info("before training, on %s: %s", self._images, _told(mean_scores(scores)))
            return {"scores": scores, "seconds": time.perf_counter() - began}

        return PASSES * float(self.notes.keep("before", measure)["seconds"])

    def run(self) -> None:
        """Every step that is not done yet, then what the captioner is worth, on stdout."""
        self._tune()
        self._step("confidence", self._calibrate)
        self._step("attention", self._test_attention)
        self.notes.keep("scores", self._score)
        print(self._summary())
        self.notes.keep("finished", lambda: True)

    @property
    def finished(self) -> bool:
        return "finished" in self.notes.found

    def _tune(self) -> None:
        """The choice is noted before it is made the checkpoint's: made of a tuned captioner, it would be another."""
        self._step("settings", self._choose_settings)
        chosen = self.notes.found["settings"].get("chosen")
        captioner = self._captioner()
        if chosen is not None:
            size, generation_config = chosen["image_size"], GenerationConfig.from_dict(chosen["generation_config"])
            if (size, generation_config) != (captioner.config.image_size, captioner.generation_config):
                with_settings(captioner, size, generation_config).save_pretrained(self.folder)

    def _step(self, name: str, step: Callable[[], dict[str, Any]]) -> None:
        """Do a step unless it is done. It is left out where it has nothing to go by, and the log says so."""

        def measure() -> dict[str, Any]:
            began = time.perf_counter()
            try:
                found = step()
            except (DataError, ConfigError) as error:
                logger.info("%s: left out. %s", name, error)
                return {"left out": str(error)}
            logger.info("%s: %s (%s)", name, found["told"], duration(time.perf_counter() - began))
            return found

        self.notes.keep(name, measure)

    def _choose_settings(self) -> dict[str, Any]:
        if len(self.validation) < FEWEST_TO_TUNE:
            raise DataError(
                f"Found {self._images} to choose generation settings by; expected at least {FEWEST_TO_TUNE}; they stay "
                "those that it began with."
            )
        found = tune(self._captioner(), self.validation)
        settings = ", ".join(f"{name} {getattr(found[0].generation_config, name)}" for name in TUNED)
        size, generation_config = found[0].image_size, found[0].generation_config.to_dict()
        return {
            "told": f"{settings} at {size} pixels, the best of {len(found)} on {self._images}",
            "chosen": {"image_size": size, "generation_config": generation_config},
        }

    def _calibrate(self) -> dict[str, Any]:
        captioner = self._captioner()
        confidence, calibration, _ = calibrate(captioner, self.train, self.validation, ood_images(None))
        keep_confidence(captioner, confidence, calibration, self.folder)
        return {"told": f"calibrated on {self._images}, expected calibration error {calibration.error:.3f}"}

    def _test_attention(self) -> dict[str, Any]:
        _, found = measure_attention(self._captioner(), first_of_each(self.validation, TESTED_IMAGES))
        update_evaluation(self.folder, occlusion=found)
        most, random, _ = (found.occluded[region] for region in OCCLUDED_REGIONS)
        return {
            "told": f"a word's probability falls from {found.baseline:.3f} to {most:.3f} with the fifth occluded that "
            f"it attended to most, to {random:.3f} with a random one"
        }

    def _score(self) -> EachScores:
        captioner = self._captioner()
        scores = self._scores(captioner, meteor=True)
        measured = with_scores(captioner.evaluation, scores, self.validation, "validation", self.command)
        update_evaluation(self.folder, scores=measured.scores)
        return scores

    def _summary(self) -> str:
        after: EachScores = self.notes.found["scores"]
        before: EachScores = self.notes.found.get("before", {}).get("scores", {})
        lines = [f"The captioner lies in {self.folder}.", "", f"scores x 100 on {self._images}:"]
        for data_set, scores in after.items():
            lines += [f"  {data_set}"] if len(after) > 1 else []
            for name in COMPARED:
                then = f"{100 * before[data_set][name]:.1f} -> " if before else ""
                lines.append(f"  {name:8}{then}{100 * scores[name]:.1f}")
        lines.append("Weights and settings were chosen on these images, which flatters them.")
        if len(self.validation) < FEW_IMAGES:
            lines[-1] += f" They are fewer than {FEW_IMAGES}, so chance moves the scores far."
        model = shlex.quote(str(self.folder))
        lines += ["", "Next:"]
        lines += [f"  hf-captioner caption IMAGE --model {model}", f"  hf-captioner push OWNER/NAME --model {model}"]
        return "\n".join(lines)

    @property
    def _images(self) -> str:
        return counted(len(self.validation), "validation image")

    def _captioner(self) -> ImageCaptioner:
        return ImageCaptioner.from_pretrained(self.folder, device=self.device, backend="torch")

    def _scores(self, captioner: ImageCaptioner, *, meteor: bool) -> EachScores:
        captions = caption_records(captioner, self.validation)
        return score_each([caption.text for caption in captions], self.validation, meteor=meteor)


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * scores[name]:.1f}" for name in COMPARED)
