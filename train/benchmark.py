"""Speed benchmark: `python -m train.benchmark` compares captioning in every way with the bare encoder, its upper limit.

Everything is timed in alternation, and medians of ratios within a round are reported, so that other load on the machine
affects all alike. Both libraries' bare encoders are PyTorch's and ONNX Runtime's forward pass over pixels in memory;
captions go from files to sentences with their attention.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from PIL import Image, ImageOps

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.hub.packaged import data_path
from hf_captioner.images import open_image, preprocess
from hf_captioner.modeling.device import Way, dtype_name, has_bfloat16, machine
from hf_captioner.training.command import run_command
from train.peers import peers
from train.scaling_benchmark import archive_stages, archive_time, training_throughput

BATCHES = (8, 32)
SIZE = (500, 375)
"""Pixels of the images that are captioned, as on Flickr."""
PASSIVE = "OMP_WAIT_POLICY"
"""Of PyTorch's threads: waiting for work, they would else take the cores from ONNX Runtime's for a while."""
COMMAND = "import sys; from hf_captioner.cli import main; sys.exit(main(sys.argv[1:]))"
CAPTION = """
import re, sys
from pathlib import Path
from hf_captioner import ImageCaptioner
ImageCaptioner.from_pretrained(sys.argv[1], backend=sys.argv[2], dtype=sys.argv[3]).caption([sys.argv[4]] * 32)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
"""Not by getrusage, for which a process has at least the memory of the one that started it. Linux only."""

Row = tuple[str, ...]
Works = Mapping[str, Callable[[], object]]


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


def ways(device: torch.device) -> list[Way]:
    """Every way to compute on a device."""
    if device.type != "cpu":
        return [Way("torch", torch.float32), Way("torch", torch.bfloat16), Way("torch", torch.float16)]
    rounded = [Way("torch", torch.bfloat16)] if has_bfloat16() else []
    return [Way("torch", torch.float32), *rounded, Way("onnx", torch.float32), Way("onnx", torch.int8)]


def name_of(way: Way) -> str:
    return f"{'PyTorch' if way.backend == 'torch' else 'ONNX Runtime'}, {dtype_name(way.dtype)}"


def load_all(model: str | None, size: int | None, device: str, folder: Path) -> dict[Way, ImageCaptioner]:
    """The captioner in every way, reading images of this size; exported where it was not yet."""
    captioner = ImageCaptioner.from_pretrained(model, device=device, dtype="float32", backend="torch")
    captioner.config = dataclasses.replace(captioner.config, image_size=size or captioner.config.image_size)
    captioner.save_pretrained(folder)
    return {
        way: ImageCaptioner.from_pretrained(folder, device=device, dtype=way.dtype, backend=way.backend)
        for way in ways(captioner.device)
    }


def bare_encoders(captioners: Mapping[Way, ImageCaptioner], paths: Sequence[Path], sizes: Sequence[int]) -> Works:
    """The forward pass in float32 of each library over as many images as there are paths, so many at a time."""
    works: dict[str, Callable[[], object]] = {}
    for way, captioner in captioners.items():
        if way.dtype != torch.float32:
            continue
        pixels = torch.stack([preprocess(open_image(path), captioner.config) for path in paths])
        pixels = pixels.to(captioner.device, memory_format=torch.channels_last)
        for size in sizes:
            works[f"{name_of(way)}: the encoder alone, {size} at a time"] = partial(encode, captioner, pixels, size)
    return works


@torch.inference_mode()
def encode(captioner: ImageCaptioner, pixels: torch.Tensor, size: int) -> None:
    runtime = captioner.runtime
    for part in pixels.split(size):
        captioner.encoder(part) if runtime is None else runtime.encode(part)
    if captioner.device.type == "cuda":  # which is only given its work by a call
        torch.cuda.synchronize(captioner.device)


def throughput(captioners: Mapping[Way, ImageCaptioner], paths: Sequence[Path], rounds: int) -> Iterator[Row]:
    """Batches: (what, images/s, against PyTorch's encoder at its best, against ONNX Runtime's own)."""
    some = list(paths[: max(BATCHES)])
    bare = bare_encoders(captioners, some, BATCHES)
    works = dict(bare)
    for way, captioner in captioners.items():
        for what, options in (("greedy search", {"num_beams": 1}), ("its own search", {})):
            works[f"{name_of(way)}: captions, {max(BATCHES)} at a time, {what}"] = partial(
                captioner.caption, some, batch_size=max(BATCHES), **options
            )
    seconds = dict(zip(works, alternating(rounds, *works.values()), strict=True))
    for name, spent in seconds.items():
        yield name, f"{len(some) / statistics.median(spent):.1f}", *against(spent, seconds, bare, faster=True)


def latency(captioners: Mapping[Way, ImageCaptioner], paths: Sequence[Path], count: int) -> Iterator[Row]:
    """One image at a time: (what, median, 99th percentile, against each library's bare encoder)."""
    bare = bare_encoders(captioners, paths[:1], (1,))
    works, after = dict(bare), iter(range(10**9))

    def caption(captioner: ImageCaptioner, beams: int) -> None:
        captioner.caption(paths[next(after) % len(paths)], num_beams=beams)

    for way, captioner in captioners.items():
        own = captioner.generation_config.num_beams
        works[f"{name_of(way)}: greedy search"] = partial(caption, captioner, 1)
        works[f"{name_of(way)}: its own search"] = partial(caption, captioner, own)
    seconds = dict(zip(works, alternating(count, *works.values()), strict=True))
    for name, spent in seconds.items():
        half, most = (1000 * statistics.quantiles(spent, n=100)[at - 1] for at in (50, 99))
        yield name, f"{half:.0f} ms", f"{most:.0f} ms", *against(spent, seconds, bare, faster=False)


def against(spent: list[float], seconds: Mapping[str, list[float]], bare: Works, *, faster: bool) -> Row:
    """How much faster, or how many times longer, it was than the best of each library's bare encoders."""
    columns = []
    for library in ("PyTorch", "ONNX Runtime"):
        own = [seconds[name] for name in bare if name.startswith(library)]
        best = min(own, key=statistics.median, default=None)
        shown = "-" if best is None else f"{ratio(best, spent) if faster else ratio(spent, best):.2f}"
        columns.append(shown)
    return tuple(columns)


def start_up(folder: Path, image: Path, captioners: Mapping[Way, ImageCaptioner], rounds: int) -> Iterator[Row]:
    """New processes: (what, seconds, against `import torch`)."""
    commands = {"`python -c 'import torch'`": [sys.executable, "-c", "import torch"]}
    for way in captioners:
        how = ["--model", str(folder), "--backend", way.backend, "--dtype", dtype_name(way.dtype)]
        commands[f"`hf-captioner caption one.jpg`, {name_of(way)}"] = [
            sys.executable, "-c", COMMAND, "caption", str(image), *how
        ]  # fmt: skip
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = partial(subprocess.run, check=True, env=compiled, capture_output=True)
    spent = alternating(rounds, *(partial(start, command) for command in commands.values()))
    for name, seconds in zip(commands, spent, strict=True):
        yield name, f"{statistics.median(seconds):.1f} s", f"{ratio(seconds, spent[0]):.2f}"


def memory(folder: Path, image: Path, captioners: Mapping[Way, ImageCaptioner]) -> Iterator[Row]:
    """(how a batch of 32 is captioned in a new process, its peak memory)."""
    for way in captioners:
        command = [sys.executable, "-c", CAPTION, str(folder), way.backend, dtype_name(way.dtype), str(image)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        yield name_of(way), f"{int(done.stdout) / 1024:,.0f} MiB"


def against_peers(captioners: Mapping[Way, ImageCaptioner], path: Path, rounds: int) -> Iterator[Row]:
    """One image: (what, milliseconds, against this captioner as it is quickest)."""
    works: dict[str, Callable[[], object]] = {
        f"this captioner, {name_of(way)}": partial(captioner.caption, path) for way, captioner in captioners.items()
    }
    works |= {f"transformers: {name}": call for name, call in peers().items()}
    seconds = dict(zip(works, alternating(rounds, *works.values()), strict=True))
    best = min(seconds.values(), key=statistics.median)
    for name, spent in seconds.items():
        yield name, f"{1000 * statistics.median(spent):,.0f} ms", f"{ratio(spent, best):.1f}"


def print_table(head: Row, rows: Iterator[Row]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.benchmark", description=__doc__)
    parser.add_argument("--model", metavar="ID", help="a folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--image-size", type=int, help="pixels of a side, in place of the checkpoint's")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), or a device of PyTorch's")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds")
    parser.add_argument("--archive", type=int, default=1000, help="most images of the archive rows; 0 leaves them out")
    parser.add_argument("--training", action="store_true", help="training, too")
    parser.add_argument("--peers", action="store_true", help="captioners of transformers, too")
    options = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        captioners = load_all(options.model, options.image_size, options.device, folder / "model")
        first = next(iter(captioners.values()))
        libraries = f"PyTorch {torch.__version__}, ONNX Runtime {version('onnxruntime')}"
        side = first.config.image_size
        print(f"{machine()}; {libraries}; {first.device}, {side} x {side}")
        paths = write_images(folder, 4 * max(BATCHES))
        columns = ("against PyTorch's encoder", "against ONNX Runtime's encoder")
        alone = latency(captioners, paths, 10 * options.rounds)
        print_table(("one image", "median", "99th percentile", *columns), alone)
        batches = throughput(captioners, paths, options.rounds)
        print_table((f"{max(BATCHES)} images", "images/s", *columns), batches)
        started = start_up(folder / "model", paths[0], captioners, max(3, options.rounds // 2))
        print_table(("a new process", "time", "against import torch"), started)
        if sys.platform == "linux":
            print_table(("32 images in a new process", "peak memory"), memory(folder / "model", paths[0], captioners))
        for way, captioner in captioners.items():
            print_table((f"a tar file, {name_of(way)}", "time an image"), archive_stages(captioner, paths))
        if options.peers:
            rows = against_peers(captioners, paths[0], options.rounds)
            print_table(("one image, twelve words", "median", "against the quickest"), rows)
    if options.archive:
        print_table(("archive", "time an image", "peak memory"), archive_time(options.archive))
    if options.training:
        rows = training_throughput(options.rounds)
        print_table(("training", "images/s", "vs bare forward and backward passes"), rows)


if __name__ == "__main__":
    if PASSIVE not in os.environ:  # read when PyTorch is imported
        os.environ[PASSIVE] = "passive"
        os.execv(sys.executable, [sys.executable, "-m", "train.benchmark", *sys.argv[1:]])
    sys.exit(main())
