"""Tune a checkpoint's own search on dev: `python -m train.tune --data DIR --model FOLDER [--write]`.

Tries every combination of beams, length penalty and n-gram blocking, and with --write stores the best in the checkpoint
as its default. Best is the largest product of BLEU-4, ROUGE-L and CIDEr: long captions raise CIDEr and lower BLEU, and
neither is to be bought with the other. The photographs are encoded once.
"""

import argparse
import dataclasses
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hf_captioner.config import ConfigError, SearchConfig
from hf_captioner.hub import CheckpointError
from hf_captioner.images import ImageError
from hf_captioner.model import ImageCaptioner
from train.data import DataError, Record, load_split
from train.evaluate import describe, score
from train.features import encoded

BEAMS = (1, 3, 5)
LENGTH_PENALTIES = (0.7, 0.8, 0.9, 1.0)
NO_REPEAT_NGRAMS = (2, 3)
WEIGHED = ("BLEU-4", "ROUGE-L", "CIDEr")


@dataclasses.dataclass(frozen=True)
class Trial:
    search: SearchConfig
    scores: dict[str, float]
    described: dict[str, float]

    @property
    def product(self) -> float:
        return math.prod(self.scores[name] for name in WEIGHED)

    def row(self) -> str:
        settings = [self.search.beams, self.search.length_penalty, self.search.no_repeat_ngram]
        scores = [f"{100 * self.scores[name]:.1f}" for name in WEIGHED]
        return f"| {' | '.join(map(str, [*settings, *scores, *(f'{v:.4g}' for v in self.described.values())]))} |"


def trials(captioner: ImageCaptioner, records: Sequence[Record]) -> list[Trial]:
    """Every combination, the best first."""
    grids = list(encoded(captioner, [record.path for record in records]))
    found = []
    combinations = list(itertools.product(BEAMS, LENGTH_PENALTIES, NO_REPEAT_NGRAMS))
    for beams, penalty, ngram in tqdm(combinations, desc="search", dynamic_ncols=True):
        if beams == 1 and penalty != LENGTH_PENALTIES[0]:
            continue  # greedy search never compares lengths
        search = captioner.search_settings({"beams": beams, "length_penalty": penalty, "no_repeat_ngram": ngram})
        captions = [best[0].text for grid in grids for best in captioner.caption_grid(grid, search)]
        found.append(Trial(search, score(captions, records, meteor=False), describe(captions)))
    return sorted(found, key=lambda trial: trial.product, reverse=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.tune", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="photographs and captions; see train/data.py")
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--write", action="store_true", help="store the best setting in the checkpoint's config.json")
    options = parser.parse_args(argv)
    try:
        records = load_split(options.data, "dev", split_file=options.splits, model=str(options.model))
        captioner = ImageCaptioner.from_pretrained(options.model)
        found = trials(captioner, records)
        if options.write:
            # What was measured belongs to the old setting.
            captioner.config = dataclasses.replace(
                captioner.config, search=found[0].search, results=None, calibration=None, occlusion=None
            )
            captioner.confidence = None
            captioner.save_pretrained(options.model)
    except (CheckpointError, ConfigError, DataError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    names = ["beams", "length penalty", "no repeated n-gram", *WEIGHED, *found[0].described]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    print("\n".join(trial.row() for trial in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
