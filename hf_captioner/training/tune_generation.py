"""Tune a checkpoint's search and image size on validation.

`python -m hf_captioner.training.tune_generation --data DIR --model FOLDER [--write]`

First its images are read at its own size and at one that gives a row of cells more: crops in training enlarge what
they show, so that a larger size can fit better (Touvron et al. 2019). Then every combination of beams, length penalty
and n-gram blocking is tried. With --write the best setting becomes the checkpoint's default. Best is the largest
product of BLEU-4, ROUGE-L and CIDEr: long captions raise CIDEr and lower BLEU, and neither is to be bought with the
other.
"""

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import GenerationConfig
from hf_captioner.errors import CheckpointError, ConfigError, DataError, ImageError
from hf_captioner.hub.evaluation import Evaluation
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.data import Record, load_split
from hf_captioner.training.evaluate import describe, score
from hf_captioner.training.feature_cache import encoded

BEAMS = (1, 3, 5)
LENGTH_PENALTIES = (0.7, 0.8, 0.9, 1.0)
NO_REPEAT_NGRAMS = (2, 3)
WEIGHED = ("BLEU-4", "ROUGE-L", "CIDEr")


@dataclasses.dataclass(frozen=True)
class Trial:
    image_size: int
    search: GenerationConfig
    scores: dict[str, float]
    described: dict[str, float]

    @property
    def product(self) -> float:
        return math.prod(self.scores[name] for name in WEIGHED)

    def row(self) -> str:
        settings = [
            self.image_size,
            self.search.num_beams,
            self.search.length_penalty,
            self.search.no_repeat_ngram_size,
        ]
        scores = [f"{100 * self.scores[name]:.1f}" for name in WEIGHED]
        return f"| {' | '.join(map(str, [*settings, *scores, *(f'{v:.4g}' for v in self.described.values())]))} |"


def reading_at(captioner: ImageCaptioner, image_size: int) -> ImageCaptioner:
    """The same captioner for images of another size; what was measured at the old one is dropped."""
    config = dataclasses.replace(captioner.config, image_size=image_size, confidence=None)
    other = ImageCaptioner(config, captioner.tokenizer, captioner.generation_config)
    recorded = captioner.evaluation
    other.evaluation = Evaluation(trained_on=recorded.trained_on, initialized_from=recorded.initialized_from)
    other.encoder.load_state_dict(captioner.encoder.state_dict())
    other.decoder.load_state_dict(captioner.decoder.state_dict())
    other.weights_license, other.card = captioner.weights_license, captioner.card
    return other


def trials(captioner: ImageCaptioner, records: Sequence[Record]) -> list[Trial]:
    """The image sizes with the captioner's own search, and every search at the better size; the best first."""
    larger = captioner.config.image_size + round(captioner.encoder.stride)
    found, read = [], {}
    for reader in (captioner, reading_at(captioner, larger)):
        size = reader.config.image_size
        read[size] = reader, list(encoded(reader, [record.path for record in records]))
        found.append(_trial(*read[size], records, captioner.generation_config))
    reader, grids = read[max(found, key=lambda trial: trial.product).image_size]
    combinations = list(itertools.product(BEAMS, LENGTH_PENALTIES, NO_REPEAT_NGRAMS))
    for beams, penalty, ngram in tqdm(combinations, desc="search", dynamic_ncols=True):
        if beams == 1 and penalty != LENGTH_PENALTIES[0]:
            continue  # greedy search never compares lengths
        search = captioner.prepare_generation_config(
            {"num_beams": beams, "length_penalty": penalty, "no_repeat_ngram_size": ngram}
        )
        if search != captioner.generation_config:
            found.append(_trial(reader, grids, records, search))
    return sorted(found, key=lambda trial: trial.product, reverse=True)


def _trial(
    captioner: ImageCaptioner, grids: Sequence[FeatureMap], records: Sequence[Record], search: GenerationConfig
) -> Trial:
    captions = [caption.text for grid in grids for caption in captioner.caption_features(grid, search)]
    return Trial(captioner.config.image_size, search, score(captions, records, meteor=False), describe(captions))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hf_captioner.training.tune_generation", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="images and captions; see train/data.py")
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--write", action="store_true", help="store the best setting in the checkpoint's config.json")
    options = parser.parse_args(argv)
    try:
        records = load_split(options.data, "validation", split_file=options.splits, model=str(options.model))
        captioner = ImageCaptioner.from_pretrained(options.model)
        found = trials(captioner, records)
        names = ["image size", "num_beams", "length penalty", "no repeated n-gram", *WEIGHED, *found[0].described]
        print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
        print("\n".join(trial.row() for trial in found))
        if options.write:
            tuned = reading_at(captioner, found[0].image_size)
            tuned.generation_config = found[0].search
            tuned.save_pretrained(options.model)
    except (CheckpointError, ConfigError, DataError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
