"""How close to the limit: `python -m train.benchmark` prints a captioner's speed as ratios to its bare encoder's.

The limit is the encoder's forward pass over pixels that are already there. What is compared is timed in turns, and the
median of the turns' ratios is printed, so that a machine that is busy with other things blurs both sides alike.
"""

import argparse
import dataclasses
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CheckpointError
from hf_captioner.hub.packaged import data_path
from hf_captioner.images import open_image, preprocess
from train.scaling_benchmark import archive_pace, training_pace

BATCHES = (1, 8, 32)
SIZE = (500, 375)
"""Pixels of the images that are captioned, as on Flickr."""
BARE = "import torch, torchvision"
LOADED = "import hf_captioner, sys; hf_captioner.ImageCaptioner.from_pretrained(*sys.argv[1:])"

Row = tuple[str, ...]


def iter_images(folder: Path, count: int) -> list[Path]:
    """JPEG files cut from the page's examples, each elsewhere."""
    examples = [open_image(path) for path in sorted((data_path("space") / "examples").glob("*.jpg"))]
    paths = []
    for index in range(count):
        example, step = examples[index % len(examples)], index // len(examples)
        left, top = (0.2 * (step % 20) / 20 * side for side in example.size)
        cut = example.resize(SIZE, Image.Resampling.BICUBIC, box=(left, top, *example.size))
        paths.append(folder / f"{index}.jpg")
        (ImageOps.mirror(cut) if step % 2 else cut).save(paths[-1], quality=90)
    return paths


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """The seconds of each piece of work in each round; a first round does not count."""
    measured = [[timed(work) for work in works] for _ in range(rounds + 1)][1:]
    return [list(column) for column in zip(*measured, strict=True)]


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def throughput(captioner: ImageCaptioner, paths: Sequence[Path], rounds: int) -> Iterator[Row]:
    """From files to captions, against the encoder alone: (what, images a second, of the encoder's)."""
    pixels = torch.stack([preprocess(open_image(path), captioner.config) for path in paths[: max(BATCHES)]])
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    for batch in BATCHES:
        some, turns = list(paths[: 4 * batch]), max(rounds, 2 * rounds * 8 // batch)

        @torch.inference_mode()
        def encoder(part: Tensor = pixels[:batch]) -> None:
            for _ in range(4):
                captioner.encoder(part)

        kinds: dict[str, Callable[[], object]] = {
            "the encoder alone": encoder,
            "greedy search": partial(captioner.caption, some, batch_size=batch, num_beams=1),
            "the checkpoint's search": partial(captioner.caption, some, batch_size=batch),
        }
        seconds = in_turns(turns, *kinds.values())
        for name, spent in zip(kinds, seconds, strict=True):
            pace = len(some) / statistics.median(spent)
            yield f"{batch} at a time, {name}", f"{pace:.1f} images/s", f"{ratio(seconds[0], spent):.2f}"


def latency(captioner: ImageCaptioner, paths: Sequence[Path], count: int) -> Iterator[Row]:
    """One image after the other, from the file to its caption with attention: (what, percentiles, ratio)."""
    one = preprocess(open_image(paths[0]), captioner.config)[None].contiguous(memory_format=torch.channels_last)
    after = iter(range(10**9))

    def caption(**search: Any) -> None:
        captioner.caption(paths[next(after) % len(paths)], **search)

    encoder = torch.inference_mode()(partial(captioner.encoder, one))
    bare, greedy, own = in_turns(count, encoder, partial(caption, num_beams=1), caption)
    for name, spent in (("the encoder alone", bare), ("greedy search", greedy), ("the checkpoint's search", own)):
        half, nine, most = (1000 * statistics.quantiles(spent, n=100)[at - 1] for at in (50, 90, 99))
        yield f"one image, {name}", f"{half:.0f} / {nine:.0f} / {most:.0f} ms", f"{ratio(spent, bare):.2f}"


def start_up(model: str | None, rounds: int) -> Iterator[Row]:
    """New processes: importing torch and torchvision alone, and importing this package and loading the captioner."""
    commands = [[sys.executable, "-c", BARE], [sys.executable, "-c", LOADED, *([model] if model else [])]]
    spent = in_turns(rounds, *(partial(subprocess.run, command, check=True) for command in commands))
    for name, seconds in zip((BARE, "import hf_captioner and load"), spent, strict=True):
        yield f"`{name}`", f"{statistics.median(seconds):.1f} s", f"{ratio(seconds, spent[0]):.2f}"


def table(head: Row, rows: Iterator[Row]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def machine() -> str:
    told = Path("/proc/cpuinfo")  # Linux alone has it
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    name = names[0] if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.benchmark", description=__doc__)
    parser.add_argument("--model", help="folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--image-size", type=int, default=224, help="pixels of a side, in place of the checkpoint's")
    parser.add_argument("--bfloat16", action="store_true", help="both in bfloat16")
    parser.add_argument("--rounds", type=int, default=5, help="turns that are timed")
    parser.add_argument("--archive", type=int, default=1000, help="the most images of the archive rows")
    options = parser.parse_args(argv)
    try:
        captioner = ImageCaptioner.from_pretrained(options.model)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    captioner.config = dataclasses.replace(captioner.config, image_size=options.image_size)
    captioner.dtype = torch.bfloat16 if options.bfloat16 else torch.float32
    print(f"{machine()}; {options.image_size} x {options.image_size}, {'bfloat16' if options.bfloat16 else 'float32'}")
    with tempfile.TemporaryDirectory() as temporary, torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
        paths = iter_images(Path(temporary), 4 * max(BATCHES))
        table(("captions", "pace", "of the encoder's"), throughput(captioner, paths, options.rounds))
        table(("captions", "median / 90 % / 99 %", "times the encoder"), latency(captioner, paths, 10 * options.rounds))
    table(("start", "time", "ratio"), start_up(options.model, max(2, options.rounds // 2)))
    table(("archive", "time an image", "peak memory"), archive_pace(options.archive))
    table(("training", "pace", "of bare forward and backward passes"), training_pace(options.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
