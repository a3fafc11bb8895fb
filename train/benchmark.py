"""How close to the limit: `python -m train.benchmark` prints a captioner's speed as ratios to its bare encoder's.

The limit is the encoder's forward pass over pixels that are already there. Limit and captioner are timed in turns, and
medians are printed, so that a machine that is busy with other things blurs both alike.
"""

import argparse
import dataclasses
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from hf_captioner.hub import CheckpointError, data_path
from hf_captioner.images import open_image, preprocess
from hf_captioner.model import ImageCaptioner

BATCHES = (1, 8, 32)
SIZE = (500, 375)
"""Of the photographs that are captioned, as on Flickr."""
IMPORTS = {
    "import torch, torchvision": "import torch, torchvision",
    "import hf_captioner and load": "import hf_captioner, sys; hf_captioner.ImageCaptioner.from_pretrained(*sys.argv[1:])",
}


def photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files cut from the page's examples, each from another place, at most 200 different ones."""
    examples = [open_image(path) for path in sorted(data_path("space").joinpath("examples").glob("*.jpg"))]
    paths = []
    for index in range(min(count, 200)):
        example, step = examples[index % len(examples)], index // len(examples)
        edge = 0.2 * (step % 20) / 20
        box = [round(side * part) for side, part in zip(example.size * 2, (edge, edge, 1, 1), strict=True)]
        cut = example.resize(SIZE, Image.Resampling.BICUBIC, box=(box[0], box[1], box[2], box[3]))
        paths.append(folder / f"{index}.jpg")
        (ImageOps.mirror(cut) if step % 2 else cut).save(paths[-1], quality=90)
    return [paths[index % len(paths)] for index in range(count)]


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """The seconds of each piece of work in each round, after one round that does not count."""
    measured = [[timed(work) for work in works] for _ in range(rounds + 1)][1:]
    return [list(column) for column in zip(*measured, strict=True)]


def throughput(captioner: ImageCaptioner, paths: Sequence[Path], rounds: int) -> Iterator[list[str]]:
    """A row for each batch size and search: photographs a second, and the ratio to the encoder's."""
    pixels = torch.stack([preprocess(open_image(path), captioner.config) for path in paths[: max(BATCHES)]])
    for batch in BATCHES:
        some = paths[: 4 * batch]

        def limit(batch: int = batch) -> None:
            for _ in range(4):
                captioner.encode(pixels[:batch])

        def ours(batch: int = batch, some: Sequence[Path] = some, **search: int) -> None:
            captioner.caption(some, batch_size=batch, **search)

        more = rounds * max(BATCHES) // (4 * batch)
        bare, greedy, own = in_turns(max(rounds, more), limit, lambda ours=ours: ours(beams=1), ours)
        for name, seconds in (("the bare encoder", bare), ("greedy search", greedy), ("the checkpoint's search", own)):
            ratio = statistics.median(b / s for b, s in zip(bare, seconds, strict=True))
            yield [
                f"batch {batch}, {name}",
                f"{len(some) / statistics.median(seconds):.1f} photographs/s",
                f"{ratio:.2f}",
            ]
