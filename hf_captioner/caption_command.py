"""`hf-captioner caption`: images from anywhere, captions to stdout or into a table that a stopped run goes on with."""

import argparse
import contextlib
import functools
import itertools
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from hf_captioner.bulk.printable import printable
from hf_captioner.bulk.readers import read_sources, shards
from hf_captioner.bulk.results import CaptionResult, CaptionWriter, Row, SeenKeys, csv_lines, json_lines
from hf_captioner.bulk.run import BulkResult, caption_to_writer, run_fingerprint
from hf_captioner.bulk.shards import Discovered, NamedImage
from hf_captioner.bulk.writers import open_writer
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError, ImageError
from hf_captioner.images import IMAGE_SUFFIXES

T = TypeVar("T")

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """Caption `options.paths` as the other options say; 1 where an image failed, else 0."""
    _check(options)
    result = _on_ray(options) if options.engine == "ray" else _here(options)
    total, failed = result.captioned + result.failed + result.before, result.failed + result.failed_before
    if not total:
        raise _no_image(options.paths)
    if failed:
        earlier = f", {result.failed_before} of them in an earlier run; --retry-failed reads these again"
        if options.retry_failed:  # it has read again what it found
            earlier = f", {result.failed_before} of them in an earlier run and not among the images given now"
        logger.warning("%d of %d images failed%s.", failed, total, earlier if result.failed_before else "")
    return 1 if failed else 0


def _check(options: argparse.Namespace) -> None:
    """Raise ConfigError for flags that do not go together."""
    if options.retry_failed and not options.out:
        raise ConfigError("--retry-failed reads again what failed in a table; give that table: --out TABLE.")
    if options.null and "-" not in options.paths:
        raise ConfigError("--null says how paths on stdin end; give - among the paths to read them.")


def _here(options: argparse.Namespace) -> BulkResult:
    discovered = Discovered()
    found = read_sources(_places(options), discovered, allow_outside_paths=options.allow_outside_paths)
    images = _some(found, options.paths)
    captioner = ImageCaptioner.from_pretrained(options.model, **options.computing)
    generation_config = captioner.prepare_generation_config(options.generation)
    with contextlib.ExitStack() as stack:
        writer: CaptionWriter = StdoutWriter(options)
        if options.out:
            fingerprint = run_fingerprint(captioner, generation_config)
            writer = stack.enter_context(open_writer(options.out, fingerprint, retry_failed=options.retry_failed))
        if options.heatmaps:
            options.heatmaps.mkdir(parents=True, exist_ok=True)

        def on_result(index: int, image: NamedImage, result: CaptionResult) -> None:
            if isinstance(result, ImageError):
                named = str(result).startswith(image.name)  # not that of bytes from an archive
                logger.error("%s", result if named else f"{image.name}: {result}")
            elif options.heatmaps:
                result.contact_sheet().save(options.heatmaps / f"{index:06d}-{_short_stem(image.name)}.png")

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
    found = shards(_places(options), discovered, allow_outside_paths=options.allow_outside_paths)
    return caption_on_ray(
        functools.partial(ImageCaptioner.from_pretrained, options.model, **options.computing),
        _some(found, options.paths),
        options.out,
        batch_size=options.batch_size,
        retry_failed=options.retry_failed,
        discovered=discovered,
        **options.generation,
    )


def _some(found: Iterator[T], paths: Sequence[str]) -> Iterator[T]:
    """What was found on the paths. Raises ConfigError where that is nothing; what stdin will name is not awaited."""
    if "-" in paths:
        return found
    for first in found:
        return itertools.chain([first], found)
    raise _no_image(paths)


def _no_image(paths: Sequence[str]) -> ConfigError:
    places = ", ".join("what stdin names" if path == "-" else path for path in paths)
    return ConfigError(f"There is no image in {places}; expected {', '.join(sorted(IMAGE_SUFFIXES))}.")


def _places(options: argparse.Namespace) -> Iterator[str]:
    """The places named, those that stdin names where the name is a dash."""
    for name in options.paths:
        if name == "-":
            yield from _named_on_stdin(b"\0" if options.null else b"\n")
        else:
            yield name


def _named_on_stdin(end: bytes) -> Iterator[str]:
    """Each path as soon as it is there; as bytes, since a name need not be text."""
    rest = b""
    while read := os.read(sys.stdin.fileno(), 1 << 16):
        *names, rest = (rest + read).split(end)
        yield from map(os.fsdecode, filter(bytes.strip, names))
    if rest.strip():
        yield os.fsdecode(rest)


def _short_stem(name: str) -> str:
    """A file's name for a contact sheet: no longer than file systems allow, and printable."""
    return printable(Path(name).stem).encode()[:200].decode(errors="ignore")


class StdoutWriter:
    """Captions on stdout: path and caption, a line each, or the rows of a table as CSV or JSON."""

    done, failed = SeenKeys(), 0

    def __init__(self, options: argparse.Namespace) -> None:
        self.encode = json_lines if options.json else csv_lines if options.csv else _plain_lines
        if options.csv:
            print(csv_lines([], header=True), end="")

    def write(self, rows: Sequence[Row]) -> None:
        print(self.encode(rows), end="", flush=True)

    def finish(self) -> int:
        return 0


def _plain_lines(rows: Iterable[Row]) -> str:
    """Path and caption, for each candidate; failures are told on stderr."""
    captions = ((row["path"], each["caption"]) for row in rows if "caption" in row for each in _candidates(row))
    return "".join(f"{printable(path)}\t{printable(caption)}\n" for path, caption in captions)


def _candidates(row: Row) -> list[Row]:
    return row.get("candidates", [row])
