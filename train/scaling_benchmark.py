"""Scaling benchmark: time per image and memory as the archive grows; training throughput against bare forward/backward.

`python -m train.scaling_benchmark ARCHIVE OUT [MODEL]` captions an archive in a process of its own and prints the time
and the peak memory as JSON; `train.benchmark` runs it.
"""

import contextlib
import dataclasses
import io
import json
import re
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from hf_captioner.bulk.readers import iter_images
from hf_captioner.bulk.results import to_row
from hf_captioner.bulk.run import caption_many
from hf_captioner.bulk.writers import open_writer
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import CaptionerConfig
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.reading import read_ahead, readers_for
from hf_captioner.training.data import Record
from hf_captioner.training.dataset import Batch, CaptionDataset, EpochOrder, loader
from hf_captioner.training.initialization import Origin
from hf_captioner.training.losses import CrossEntropy, LossOutput
from hf_captioner.training.recipe import Recipe, Stage
from hf_captioner.training.trainer import Trainer

BATCH = 32
MEMBERS = 5000
"""Images in a tar file."""
WORDS = [f"word{chr(97 + i // 676)}{chr(97 + i // 26 % 26)}{chr(97 + i % 26)}" for i in range(2900)]
"""A vocabulary of Flickr8k's size."""
MODEL: dict[str, Any] = {"encoder": "resnet50", "decoder": "bilstm", "hidden_size": 480}
STAGES = {
    "on frozen features": Stage(epochs=1, learning_rate=1e-4),
    "with the encoder": Stage(epochs=1, learning_rate=1e-4, unfreeze_from="layer2", encoder_learning_rate=1e-5),
}


def generated(count: int) -> list[bytes]:
    """Different JPEG files of coloured blocks, 320 x 240 pixels."""
    files = []
    for index in range(count):
        blocks = np.random.default_rng(index).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def small_captioner() -> ImageCaptioner:
    """Random weights and a fast encoder, so that reading and writing show."""
    torch.manual_seed(0)
    tokenizer = CaptionTokenizer.build([" ".join(WORDS)], min_count=1)
    config = CaptionerConfig(
        len(tokenizer),
        encoder="resnet18",
        encoder_layer="layer2",
        image_size=64,
        hidden_size=64,
        backward_hidden_size=32,
    )
    return ImageCaptioner(config, tokenizer)


def archive_time(most: int) -> Iterator[tuple[str, ...]]:
    """100, 1,000, ... images from tar files into a table: (how many, time an image, peak memory)."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, files, count = Path(temporary), generated(100), 100
        small_captioner().save_pretrained(folder / "model")
        while count <= most:
            archive = folder / str(count)
            archive.mkdir()
            for first in range(0, count, MEMBERS):
                with tarfile.open(archive / f"{first:08d}.tar", "w") as tar:
                    for index in range(first, min(first + MEMBERS, count)):
                        member = tarfile.TarInfo(f"{index:08d}.jpg")
                        member.size = len(files[index % len(files)])
                        tar.addfile(member, io.BytesIO(files[index % len(files)]))
            command = [
                sys.executable,
                "-m",
                "train.scaling_benchmark",
                str(archive),
                f"{archive}.jsonl",
                f"{folder}/model",
            ]
            done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert done["captioned"] == count, done
            each = 1000 * done["seconds"] / count
            yield f"{count:,} images, a small captioner", f"{each:.2f} ms", f"{done['memory'] / 1024:.0f} MiB"
            count *= 10


def archive_stages(captioner: ImageCaptioner, images: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    """What a run over a tar file of these images does, each part by itself, and the whole: (part, time an image)."""
    with tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "images.tar"
        with tarfile.open(archive, "w") as tar:
            for image in images:
                tar.add(image, image.name)
        clock = dict.fromkeys(("reading", "encoding", "decoding", "writing", "the whole run"), 0.0)

        @contextlib.contextmanager
        def timed(part: str) -> Iterator[None]:
            began = time.perf_counter()
            yield
            clock[part] += time.perf_counter() - began

        with timed("reading"):
            batches = list(read_ahead(iter_images(archive), BATCH, readers_for(captioner.config, captioner.device)))
        for batch in batches:
            assert batch.pixels is not None
            with timed("encoding"):
                features = captioner.encode(batch.pixels)
            with timed("decoding"):
                captions = captioner.caption_features(features, captioner.generation_config)
            with timed("writing"), open_writer(Path(temporary) / f"{id(batch)}.jsonl", {}) as writer:
                writer.write([to_row(named.name, found) for named, found in zip(batch.images, captions, strict=True)])
                writer.finish()
        with timed("the whole run"):
            caption_many(captioner, archive, Path(temporary) / "whole.jsonl", batch_size=BATCH)
    for part, seconds in clock.items():
        yield part, f"{1000 * seconds / len(images):.1f} ms"


def training_throughput(rounds: int) -> Iterator[tuple[str, ...]]:
    """Training steps against bare forward and backward passes over the same batches: (what, images/s, ratio)."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        records = []
        for index, file in enumerate(generated(104)):
            path = folder / f"{index}.jpg"
            path.write_bytes(file)
            captions = tuple(" ".join(np.random.default_rng([index, n]).choice(WORDS, 10)) for n in range(5))
            records.append(Record(path, captions, "train" if index < 96 else "validation"))
        for name, stage in STAGES.items():
            stages = (dataclasses.replace(stage, epochs=rounds + 1),)
            recipe = Recipe(stages, MODEL, {}, min_count=1, batch_size=48, patience=99)
            trainer = Trainer(recipe, records, folder / name.replace(" ", "-"), Origin("random"))
            trainer.run()
            spent = [row["seconds"] for row in trainer.progress.history][1:]
            bare = _bare(trainer, rounds)
            rate, share = 96 / statistics.median(spent), statistics.median(bare) / statistics.median(spent)
            yield name, f"{rate:.1f}", f"{share:.2f}"


def _bare(trainer: Trainer, rounds: int) -> list[float]:
    """Seconds of each round of forward and backward passes over batches in memory."""
    recipe, stage, config = trainer.recipe, trainer.recipe.stages[0], trainer.captioner.config
    features = None if stage.reads_pixels else trainer.cached(trainer.train)
    trainer.captioner.encoder.unfreeze_from(stage.unfreeze_from)
    dataset = CaptionDataset(trainer.train, trainer.tokenizer, config, stage, recipe.seed, features)
    order = EpochOrder([1.0] * len(dataset), recipe.batch_size, recipe.seed)
    batches: list[Batch] = list(loader(dataset, order, recipe))
    model = CrossEntropy(trainer.captioner, label_smoothing=recipe.label_smoothing).train()
    trainer.captioner.encoder.eval()
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        for batch in batches:
            with trainer.accelerator.autocast():
                output: LossOutput = model(batch.to(trainer.accelerator.device))
            (output.loss / output.weight).backward()
            model.zero_grad()
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def main(arguments: Sequence[str]) -> None:
    captioner = ImageCaptioner.from_pretrained(*arguments[2:])
    began = time.perf_counter()
    result = caption_many(captioner, iter_images(arguments[0]), arguments[1])
    seconds = time.perf_counter() - began
    print(json.dumps({"captioned": result.captioned, "seconds": seconds, "memory": _peak_memory()}))


def _peak_memory() -> int:
    """This process' own peak, in KiB; getrusage also counts what the process that started it held then."""
    status = Path("/proc/self/status")  # Linux alone has it
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])  # type: ignore[index]


if __name__ == "__main__":
    main(sys.argv[1:])
