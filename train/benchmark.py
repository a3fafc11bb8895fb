"""Speed benchmark: `python -m train.benchmark` compares captioning with the bare encoder, its upper limit.

The encoder's forward pass over pixels in memory and captioning from files are timed in alternation, and the median
ratio is reported, so that other load on the machine affects both alike.
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

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.hub.packaged import data_path
from hf_captioner.images import open_image, preprocess
from hf_captioner.training.command import run_command
from train.scaling_benchmark import archive_time, training_throughput

BATCHES = (1, 8, 32)
SIZE = (500, 375)
"""Pixels of the images that are captioned, as on Flickr."""
BARE = "import torch, torchvision"
LOADED = "import hf_captioner, sys; hf_captioner.ImageCaptioner.from_pretrained(*sys.argv[1:])"

Row = tuple[str, ...]


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEG files: different crops of the page's examples."""
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


def alternating(rounds: int, *works: Callable[[], object]) -> list[list[float]]:
    """The seconds of each piece of work in each round, after one round to warm up."""
    measured = [[timed(work) for work in works] for _ in range(rounds + 1)][1:]
    return [list(column) for column in zip(*measured, strict=True)]


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def throughput(captioner: ImageCaptioner, paths: Sequence[Path], rounds: int) -> Iterator[Row]:
    """Batches, from files to captions: (what, images/s, of the encoder at the largest batch, of the encoder's best)."""
    pixels = torch.stack([preprocess(open_image(path), captioner.config) for path in paths[: max(BATCHES)]])
    pixels = pixels.to(captioner.device, memory_format=torch.channels_last)
    some = list(paths[: 4 * max(BATCHES)])

    @torch.inference_mode()
    def encode(batch: int) -> None:
        for part in pixels.split(batch) * 4:
            captioner.encoder(part)
        _synchronize(captioner.device)

    works: dict[str, Callable[[], object]] = {
        f"the encoder alone, {batch} at a time": partial(encode, batch) for batch in BATCHES
    }
    for batch in BATCHES:
        works[f"captions, {batch} at a time, greedy search"] = partial(
            captioner.caption, some, batch_size=batch, num_beams=1
        )
        works[f"captions, {batch} at a time, the checkpoint's settings"] = partial(
            captioner.caption, some, batch_size=batch
        )
    seconds = dict(zip(works, alternating(rounds, *works.values()), strict=True))
    encoder = {batch: seconds[f"the encoder alone, {batch} at a time"] for batch in BATCHES}
    best = min(encoder.values(), key=statistics.median)
    for name, spent in seconds.items():
        rate = len(some) / statistics.median(spent)
        yield name, f"{rate:.1f}", f"{ratio(encoder[max(BATCHES)], spent):.2f}", f"{ratio(best, spent):.2f}"


def latency(captioner: ImageCaptioner, paths: Sequence[Path], count: int) -> Iterator[Row]:
    """One image at a time, from the file to its caption with attention: (what, percentiles, ratio to the encoder)."""
    one = preprocess(open_image(paths[0]), captioner.config)[None]
    one = one.to(captioner.device, memory_format=torch.channels_last)
    after = iter(range(10**9))

    def caption(**generation: Any) -> None:
        captioner.caption(paths[next(after) % len(paths)], **generation)

    @torch.inference_mode()
    def encode() -> None:
        captioner.encoder(one)
        _synchronize(captioner.device)

    bare, greedy, own = alternating(count, encode, partial(caption, num_beams=1), caption)
    for name, spent in (("the encoder alone", bare), ("greedy search", greedy), ("the checkpoint's settings", own)):
        half, nine, most = (1000 * statistics.quantiles(spent, n=100)[at - 1] for at in (50, 90, 99))
        yield name, f"{half:.0f} / {nine:.0f} / {most:.0f} ms", f"{ratio(spent, bare):.2f}"


def _synchronize(device: torch.device) -> None:
    """Wait for a GPU, which is only given its work by a call."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def start_up(model: str | None, rounds: int) -> Iterator[Row]:
    """New processes: import torch and torchvision, against import hf_captioner and load the captioner."""
    commands = [[sys.executable, "-c", BARE], [sys.executable, "-c", LOADED, *([model] if model else [])]]
    spent = alternating(rounds, *(partial(subprocess.run, command, check=True) for command in commands))
    for name, seconds in zip((BARE, "import hf_captioner and load"), spent, strict=True):
        yield f"`{name}`", f"{statistics.median(seconds):.1f} s", f"{ratio(seconds, spent[0]):.2f}"


def machine() -> str:
    told = Path("/proc/cpuinfo")  # Linux alone has it
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    name = names[0] if names else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def _print_table(head: Row, rows: Iterator[Row]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.benchmark", description=__doc__)
    parser.add_argument("--model", metavar="ID", help="a folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--image-size", type=int, help="pixels of a side, in place of the checkpoint's")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), or a device of PyTorch's")
    parser.add_argument("--dtype", default="auto", help="auto (float32), bfloat16 or float16; of both sides")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--archive", type=int, default=1000, help="most images of the archive rows")
    options = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    captioner = ImageCaptioner.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    size = options.image_size or captioner.config.image_size
    captioner.config = dataclasses.replace(captioner.config, image_size=size)
    print(f"{machine()}; {captioner.device}, {size} x {size}, {captioner.dtype}")
    reduced = torch.autocast(captioner.device.type, captioner.dtype, enabled=captioner.dtype != torch.float32)
    with tempfile.TemporaryDirectory() as temporary, reduced:
        paths = write_images(Path(temporary), 4 * max(BATCHES))
        columns = ("", "images/s", f"vs encoder at batch {max(BATCHES)}", "vs encoder's best")
        _print_table(columns, throughput(captioner, paths, options.rounds))
        percentiles = latency(captioner, paths, 10 * options.rounds)
        _print_table(("one image", "median / 90th / 99th percentile", "vs encoder"), percentiles)
    _print_table(("start", "time", "ratio"), start_up(options.model, max(2, options.rounds // 2)))
    _print_table(("archive", "time an image", "peak memory"), archive_time(options.archive))
    _print_table(("training", "images/s", "vs bare forward and backward passes"), training_throughput(options.rounds))


if __name__ == "__main__":
    sys.exit(main())
