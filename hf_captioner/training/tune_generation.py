"""Tune a checkpoint's generation settings and image size on the validation split.

`python -m hf_captioner.training.tune_generation --data DATA [DATA ...] --model FOLDER [--write]`

The image sizes compared are the checkpoint's own and one that adds a row of cells to the feature map: random crops in
training enlarge objects, so a larger size can fit better (Touvron et al. 2019). At the better one every combination of
num_beams, length_penalty and no_repeat_ngram_size is scored by BLEU-4 x ROUGE-L x CIDEr: long captions raise CIDEr and
lower BLEU, and the product trades neither for the other. Of several data sets each is scored apart, and the product is
that of the plain means. --write makes the best setting the checkpoint's default.
"""

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from tqdm import tqdm

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import GenerationConfig
from hf_captioner.errors import DataError
from hf_captioner.hub.evaluation import FEW_IMAGES, Evaluation
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.training.command import (
    checkpoint_folder,
    command_parser,
    load_captioner,
    measured_split,
    run_command,
)
from hf_captioner.training.data import Record
from hf_captioner.training.evaluate import describe, mean_scores, score_each
from hf_captioner.training.feature_cache import encoded
from hf_captioner.training.rows import counted

BEAMS = (1, 3, 5)
LENGTH_PENALTIES = (0.7, 0.8, 0.9, 1.0)
NO_REPEAT_NGRAMS = (2, 3)
TUNED = ("num_beams", "length_penalty", "no_repeat_ngram_size")
OBJECTIVE = ("BLEU-4", "ROUGE-L", "CIDEr")
"""The metrics whose product is maximised."""


@dataclasses.dataclass(frozen=True)
class Trial:
    image_size: int
    generation_config: GenerationConfig
    each: Mapping[str, Mapping[str, float]]
    """The scores of each data set, by its name."""
    described: dict[str, float]

    @property
    def scores(self) -> dict[str, float]:
        """The plain means over the data sets."""
        return mean_scores(self.each)

    @property
    def product(self) -> float:
        return math.prod(self.scores[name] for name in OBJECTIVE)

    def row(self) -> str:
        settings = [self.image_size, *(getattr(self.generation_config, name) for name in TUNED)]
        shown = [self.scores[name] for name in OBJECTIVE]
        if len(self.each) > 1:
            shown += [scores["CIDEr"] for scores in self.each.values()]
        described = [f"{value:.4g}" for value in self.described.values()]
        return f"| {' | '.join(map(str, [*settings, *(f'{100 * score:.1f}' for score in shown), *described]))} |"

    def columns(self) -> list[str]:
        """What stands in `row`."""
        apart = [f"{name} CIDEr" for name in self.each] if len(self.each) > 1 else []
        return ["image size", *TUNED, *OBJECTIVE, *apart, *self.described]


def at_image_size(captioner: ImageCaptioner, image_size: int) -> ImageCaptioner:
    """The same weights at another image size, without what was measured at the old one."""
    config = dataclasses.replace(captioner.config, image_size=image_size, confidence=None)
    other = ImageCaptioner(config, captioner.tokenizer, captioner.generation_config)
    recorded = captioner.evaluation
    other.evaluation = Evaluation(recorded.trained_on, recorded.initialized_from, language=recorded.language)
    other.encoder.load_state_dict(captioner.encoder.state_dict())
    other.decoder.load_state_dict(captioner.decoder.state_dict())
    other.weights_license, other.card = captioner.weights_license, captioner.card
    other.dtype = captioner.dtype
    return other.to(memory_format=torch.channels_last).to(captioner.device)


def with_settings(captioner: ImageCaptioner, image_size: int, generation_config: GenerationConfig) -> ImageCaptioner:
    """The same weights with other settings, without what was measured under the old ones."""
    tuned = at_image_size(captioner, image_size)
    tuned.generation_config = generation_config
    return tuned


def tune(captioner: ImageCaptioner, records: Sequence[Record]) -> list[Trial]:
    """`trials`. Raises DataError where every one scores 0."""
    found = trials(captioner, records)
    if not found[0].product:
        raise DataError(
            f"Every setting scores 0 on the {len(records)} validation images, so none is the best; give more images, "
            "whose captions share words."
        )
    return found


def trials(captioner: ImageCaptioner, records: Sequence[Record]) -> list[Trial]:
    """The image sizes under the captioner's own settings, and every combination at the better size; the best first."""
    larger = captioner.config.image_size + round(captioner.encoder.stride)
    found, read = [], {}
    for reader in (captioner, at_image_size(captioner, larger)):
        size = reader.config.image_size
        read[size] = reader, [_on(part, "cpu") for part in encoded(reader, [record.path for record in records])]
        found.append(_trial(*read[size], records, captioner.generation_config))
    reader, features = read[max(found, key=lambda trial: trial.product).image_size]
    combinations = list(itertools.product(BEAMS, LENGTH_PENALTIES, NO_REPEAT_NGRAMS))
    for beams, penalty, ngram in tqdm(combinations, desc="generation", dynamic_ncols=True):
        if beams == 1 and penalty != LENGTH_PENALTIES[0]:
            continue  # greedy search never compares lengths
        generation_config = captioner.prepare_generation_config(
            {"num_beams": beams, "length_penalty": penalty, "no_repeat_ngram_size": ngram}
        )
        if generation_config != captioner.generation_config:
            found.append(_trial(reader, features, records, generation_config))
    return sorted(found, key=lambda trial: trial.product, reverse=True)


def _trial(
    captioner: ImageCaptioner,
    features: Sequence[FeatureMap],
    records: Sequence[Record],
    generation_config: GenerationConfig,
) -> Trial:
    captions = [
        caption.text
        for part in features
        for caption in captioner.caption_features(_on(part, captioner.device), generation_config)
    ]
    each = score_each(captions, records, meteor=False)
    return Trial(captioner.config.image_size, generation_config, each, describe(captions))


def _on(features: FeatureMap, device: torch.device | str) -> FeatureMap:
    return dataclasses.replace(features, values=features.values.to(device))


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_parser("tune_generation", __doc__)
    parser.add_argument("--write", action="store_true", help="store the best setting in the checkpoint")
    options = parser.parse_args(argv)
    return run_command(parser.prog, partial(_run, options))


def _run(options: argparse.Namespace) -> None:
    folder = checkpoint_folder(options.model) if options.write else None
    captioner = load_captioner(options)
    records = measured_split(options, captioner)
    found = tune(captioner, records)
    columns = found[0].columns()
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    print("\n".join(trial.row() for trial in found))
    print(f"\nThe first row is the best on {counted(len(records), 'validation image')}.")
    if len(records) < FEW_IMAGES:
        print(f"On so few the choice is chance; {FEW_IMAGES} or more are better.")
    if folder is not None:
        with_settings(captioner, found[0].image_size, found[0].generation_config).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
