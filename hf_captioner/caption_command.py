"""`hf-captioner caption`: images from anywhere, captions to stdout or into a table that a stopped run goes on with."""

import argparse
import contextlib
import csv
import functools
import itertools
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hf_captioner.bulk.readers import read_sources, shards
from hf_captioner.bulk.results import CaptionResult, Row, SeenKeys
from hf_captioner.bulk.run import BulkResult, caption_to_writer, run_fingerprint
from hf_captioner.bulk.shards import Discovered, NamedImage
from hf_captioner.bulk.writers import CaptionWriter, open_writer
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError, ImageError
from hf_captioner.images import IMAGE_SUFFIXES

T = TypeVar("T")

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Caption `options.paths` as the other options say; 1 where an image failed, else 0."""
    result = _on_ray(options) if options.engine == "ray" else _here(options)
    if result.failed:
        logger.warning("%d of %d images failed.", result.failed, result.failed + result.captioned)
    return 1 if result.failed else 0


def _here(options: argparse.Namespace) -> BulkResult:
    discovered = Discovered()
    images = _some(read_sources(_places(options.paths), discovered), options.paths)
    captioner = ImageCaptioner.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    generation_config = captioner.prepare_generation_config(options.generation)
    with contextlib.ExitStack() as stack:
        writer: CaptionWriter = StdoutWriter(options)
        if options.out:
            writer = stack.enter_context(open_writer(options.out, run_fingerprint(captioner, generation_config)))
        if options.heatmaps:
            options.heatmaps.mkdir(parents=True, exist_ok=True)

        def on_result(index: int, image: NamedImage, result: CaptionResult) -> None:
            if isinstance(result, ImageError):
                logger.error("%s", result)
            elif options.heatmaps:
                name = f"{index:06d}-{Path(image.name).stem[:100]}.png"
                result.contact_sheet().save(options.heatmaps / name)

        return caption_to_writer(
            writer,
            captioner,
            images,
            discovered=discovered,
            batch_size=options.batch_size,
            progress=True,
            on_result=on_result,
            **options.generation,
        )


def _on_ray(options: argparse.Namespace) -> BulkResult:
    if options.out is None or options.heatmaps:
        raise ConfigError("--engine ray writes a table and no heatmaps; give --out TABLE.parquet, without --heatmaps.")
    from hf_captioner.bulk.ray import caption_on_ray

    discovered = Discovered()
    return caption_on_ray(
        functools.partial(ImageCaptioner.from_pretrained, options.model, device=options.device, dtype=options.dtype),
        _some(shards(_places(options.paths), discovered), options.paths),
        options.out,
        batch_size=options.batch_size,
        discovered=discovered,
        **options.generation,
    )


def _some(found: Iterator[T], paths: Sequence[str]) -> Iterator[T]:
    """What was found on the paths. Raises ConfigError where that is nothing; what stdin will name is not awaited."""
    if "-" in paths:
        return found
    for first in found:
        return itertools.chain([first], found)
    raise ConfigError(f"There is no image in {', '.join(paths)}; expected {', '.join(sorted(IMAGE_SUFFIXES))}.")


def _places(given: Iterable[str]) -> Iterator[str]:
    """The places named, those that stdin names where the name is a dash."""
    for name in given:
        if name == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        else:
            yield name


class StdoutWriter:
    """Captions on stdout, one a line: path and caption, CSV, or JSON."""

    done = SeenKeys()

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        if options.csv:
            csv.writer(sys.stdout, lineterminator="\n").writerow(["path", "caption", "score"])

    def write(self, rows: Sequence[Row]) -> None:
        for row in rows:
            candidates = row.pop("candidates", [row])
            for candidate in candidates if "caption" in row else []:
                self._print({"path": row["path"], **candidate})
        sys.stdout.flush()

    def _print(self, caption: Row) -> None:
        if self.options.json:
            print(json.dumps(caption, ensure_ascii=False))
        elif self.options.csv:
            score = f"{caption['score']:.4f}"
            csv.writer(sys.stdout, lineterminator="\n").writerow([caption["path"], caption["caption"], score])
        else:
            print(f"{caption['path']}\t{caption['caption']}")
