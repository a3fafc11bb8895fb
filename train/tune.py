"""Tune a checkpoint's own search on dev: `python -m train.tune --data DIR --model FOLDER [--write]`.

Tries every combination of beams, length penalty and n-gram blocking, and with --write stores the one with the best
CIDEr in the checkpoint as its default. The photographs are encoded once.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from hf_captioner.config import ConfigError, SearchConfig
from hf_captioner.hub import CheckpointError
from hf_captioner.images import ImageError, open_image, preprocess
from hf_captioner.model import ImageCaptioner
from train.data import DataError, Record, load_records
from train.evaluate import describe, score

BEAMS = (1, 2, 3, 5)
LENGTH_PENALTIES = (0.4, 0.7, 1.0)
NO_REPEAT_NGRAMS = (2, 3)
BATCH = 50


@dataclasses.dataclass(frozen=True)
class Trial:
    search: SearchConfig
    scores: dict[str, float]
    described: dict[str, float]

    def row(self) -> str:
        settings = [self.search.beams, self.search.length_penalty, self.search.no_repeat_ngram]
        scores = [f"{100 * self.scores[name]:.1f}" for name in ("BLEU-4", "ROUGE-L", "CIDEr")]
        return f"| {' | '.join(map(str, [*settings, *scores, *(f'{v:.4g}' for v in self.described.values())]))} |"


def trials(captioner: ImageCaptioner, records: Sequence[Record]) -> list[Trial]:
    """Every combination, the best CIDEr first."""
    grids = []
    for start in tqdm(range(0, len(records), BATCH), desc="encode", dynamic_ncols=True):
        chunk = [preprocess(open_image(record.path), captioner.config) for record in records[start : start + BATCH]]
        grids.append(captioner.encode(torch.stack(chunk)))
    found = []
    combinations = list(itertools.product(BEAMS, LENGTH_PENALTIES, NO_REPEAT_NGRAMS))
    for beams, penalty, ngram in tqdm(combinations, desc="search", dynamic_ncols=True):
        if beams == 1 and penalty != LENGTH_PENALTIES[0]:
            continue  # greedy search never compares lengths
        search = captioner.search_settings({"beams": beams, "length_penalty": penalty, "no_repeat_ngram": ngram})
        captions = [best[0].text for grid in grids for best in captioner.caption_grid(grid, search)]
        found.append(Trial(search, score(captions, records, meteor=False), describe(captions)))
    return sorted(found, key=lambda trial: trial.scores["CIDEr"], reverse=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.tune", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="photographs and captions; see train/data.py")
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--write", action="store_true", help="store the best setting in the checkpoint's config.json")
    options = parser.parse_args(argv)
    try:
        everything = load_records(options.data, split_file=options.splits)
        records = [record for record in everything if record.split == "dev"]
        if not records:
            raise DataError(f"{options.data} has no dev split.")
        captioner = ImageCaptioner.from_pretrained(options.model)
        found = trials(captioner, records)
        if options.write:
            # The results that the config carries belong to the old setting.
            captioner.config = dataclasses.replace(captioner.config, search=found[0].search, results=None)
            captioner.save_pretrained(options.model)
    except (CheckpointError, ConfigError, DataError, ImageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    names = ["beams", "length penalty", "no repeated n-gram", "BLEU-4", "ROUGE-L", "CIDEr", *found[0].described]
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    print("\n".join(trial.row() for trial in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
