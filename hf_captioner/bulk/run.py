"""Many images into one table, in bounded memory: a run that was stopped at any moment is continued by the same call."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Unpack

import torch
from torch import Tensor
from tqdm import tqdm

from hf_captioner.bulk.readers import Source, read_sources
from hf_captioner.bulk.results import CaptionResult, CaptionWriter, Row, to_row
from hf_captioner.bulk.shards import Discovered, NamedImage
from hf_captioner.bulk.writers import open_writer
from hf_captioner.config import CaptionerConfig, GenerationConfig, GenerationOptions
from hf_captioner.errors import ImageError
from hf_captioner.hub.weights import stored_digest
from hf_captioner.modeling.device import dtype_name
from hf_captioner.modeling.tokenizer import CaptionTokenizer


class Captioner(Protocol):
    """What is needed of an `ImageCaptioner`."""

    config: CaptionerConfig
    tokenizer: CaptionTokenizer
    dtype: torch.dtype

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]: ...

    def prepare_generation_config(self, overrides: Mapping[str, Any]) -> GenerationConfig: ...

    def stream(
        self, images: Iterable[NamedImage], *, batch_size: int = 32, **generation: Unpack[GenerationOptions]
    ) -> Generator[CaptionResult, None, None]: ...


@dataclass(frozen=True)
class BulkResult:
    """What a run added to its table."""

    captioned: int
    failed: int
    """Images that could not be read; the table says why."""
    before: int
    """Images that were in the table already."""
    failed_before: int
    """Those of them that had failed."""


def caption_many(
    captioner: Captioner,
    images: Source | Iterable[Any],
    out: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    progress: bool = False,
    retry_failed: bool = False,
    allow_outside_paths: bool = False,
    **generation: Unpack[GenerationOptions],
) -> BulkResult:
    """Caption the images that are not in the table `out` yet; its name ends in .jsonl, .csv or .parquet (a folder).

    images, allow_outside_paths: as `iter_images` takes them. progress: a bar on stderr. retry_failed: also those that
    failed before; their new rows take the place of the old. generation: fields of GenerationConfig. Raises ConfigError
    for a table that was begun with other settings or is being written by another process, and OSError where it cannot
    be written; its rows stay whole, and the same call continues from there.
    """
    discovered = Discovered()
    named = read_sources([images], discovered, allow_outside_paths=allow_outside_paths)
    fingerprint = run_fingerprint(captioner, captioner.prepare_generation_config(generation))
    with open_writer(Path(out), fingerprint, retry_failed=retry_failed) as writer:
        return caption_to_writer(
            writer, captioner, named, discovered=discovered, batch_size=batch_size, progress=progress, **generation
        )


def caption_to_writer(
    writer: CaptionWriter,
    captioner: Captioner,
    images: Iterable[NamedImage],
    *,
    discovered: Discovered | None = None,
    batch_size: int = 32,
    progress: bool = False,
    on_result: Callable[[int, NamedImage, CaptionResult], object] | None = None,
    **generation: Unpack[GenerationOptions],
) -> BulkResult:
    """As `caption_many`, into an open writer.

    discovered: counts the images while these are read, for the bar's total.
    on_result: called before a row is written, with its number from 0 on.
    """
    before = len(writer.done)
    new = (image for image in images if not writer.done.take(image.name))
    captioned = failed = 0
    rows: list[Row] = []
    with tqdm(initial=before, unit=" images", disable=not progress, dynamic_ncols=True, smoothing=0.05) as bar:

        def write() -> None:
            writer.write(rows)
            bar.total = discovered.total if discovered else None
            bar.update(len(rows))
            rows.clear()

        try:
            for image, result in stream_named(captioner, new, batch_size=batch_size, **generation):
                if on_result:
                    on_result(before + captioned + failed, image, result)
                rows.append(to_row(image.name, result))
                if isinstance(result, ImageError):
                    failed += 1
                else:
                    captioned += 1
                if len(rows) == batch_size:
                    write()
        finally:
            write()
    put_back = writer.finish()
    return BulkResult(captioned, failed, before + put_back, writer.failed + put_back)


def stream_named(
    captioner: Captioner, images: Iterable[NamedImage], *, batch_size: int = 32, **generation: Unpack[GenerationOptions]
) -> Iterator[tuple[NamedImage, CaptionResult]]:
    """Each image with its result, in order, as `stream` yields them."""
    in_flight: deque[NamedImage] = deque()

    def remembered() -> Iterator[NamedImage]:
        for image in images:
            in_flight.append(image)
            yield image

    for result in captioner.stream(remembered(), batch_size=batch_size, **generation):
        yield in_flight.popleft(), result


SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "seed")
BEAM_SEARCH_FIELDS = ("num_beams", "num_beam_groups", "diversity_penalty")


def run_fingerprint(captioner: Captioner, generation_config: GenerationConfig) -> dict[str, Any]:
    """Everything that the rows of a table depend on, as JSON; runs whose fingerprints are equal may share a table.

    weights: SHA-256 of all parameters, the encoder's too, in float16, as a checkpoint stores them. tokenizer: SHA-256
    of the vocabulary in the order of its ids. config: all fields of CaptionerConfig but dropout, which is training's;
    the confidence parameters are among them, because every row holds a confidence. generation_config: all fields, but
    sampling's only with `do_sample` and beam search's only without. dtype: what captions are computed in.

    Evaluation results, the card, the device, the batch size and the checkpoint's place are no part of it.
    """
    tokenizer = captioner.tokenizer
    vocabulary = "\n".join(tokenizer.words)
    config, generation = captioner.config.to_dict(), generation_config.to_dict()
    unused = BEAM_SEARCH_FIELDS if generation_config.do_sample else SAMPLING_FIELDS
    return {
        "weights": stored_digest(captioner.named_parameters()),
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "config": {name: value for name, value in config.items() if name != "dropout"},
        "generation_config": {name: value for name, value in generation.items() if name not in unused},
        "dtype": dtype_name(captioner.dtype),
    }
