"""Many images into one table, in bounded memory: stopped at any moment and started again, it goes on."""

import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_captioner.bulk.shards import Discovered, NamedImage
from hf_captioner.bulk.writers import CaptionResult, CaptionWriter, Row, open_writer, to_row
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import GenerationConfig
from hf_captioner.errors import ImageError


@dataclass(frozen=True)
class BulkResult:
    captioned: int
    failed: int
    """Images that could not be read; the table says why."""
    before: int
    """Images that were in the table already."""


def captioned(
    captioner: ImageCaptioner, given: Iterable[NamedImage], *, batch_size: int = 32, **search: Any
) -> Iterator[tuple[NamedImage, CaptionResult]]:
    """Each image with its caption, its captions, or why there is none; in their order, as `stream` goes."""
    ahead: deque[NamedImage] = deque()

    def noted() -> Iterator[NamedImage]:
        for image in given:
            ahead.append(image)
            yield image

    for outcome in captioner.stream(noted(), batch_size=batch_size, **search):
        yield ahead.popleft(), outcome


def caption_many(
    captioner: ImageCaptioner,
    images: Iterable[NamedImage],
    out: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    progress: bool = False,
    **search: Any,
) -> BulkResult:
    """Caption what is not yet in the table `out`, whose name ends in .jsonl, .csv or .parquet (a folder).

    images: as `iter_images` yields them. progress: a bar on stderr. search: fields of GenerationConfig.
    Raises ConfigError for a table that another model, search or program began, and OSError where it cannot be written;
    what was written stays whole, and the same call goes on from there.
    """
    with open_writer(Path(out), run_fingerprint(captioner, captioner.prepare_generation_config(search))) as writer:
        return caption_to_writer(writer, captioner, images, batch_size=batch_size, progress=progress, **search)


def caption_to_writer(
    writer: CaptionWriter,
    captioner: ImageCaptioner,
    images: Iterable[NamedImage],
    *,
    discovered: Discovered | None = None,
    batch_size: int = 32,
    progress: bool = False,
    on_result: Callable[[int, NamedImage, CaptionResult], object] | None = None,
    **search: Any,
) -> BulkResult:
    """As `caption_many`, into an open writer.

    discovered: counts the images while these are read, for the bar's total.
    on_result: called before a row is written, with its number from 0 on.
    """
    before = len(writer.done)
    new = (image for image in images if not writer.done.take(image.name))
    counts, rows = [0, 0], list[Row]()
    with tqdm(initial=before, unit="image", disable=not progress, dynamic_ncols=True, smoothing=0.05) as bar:

        def write() -> None:
            writer.write(rows)
            bar.total = discovered.total if discovered else None
            bar.update(len(rows))
            rows.clear()

        try:
            for image, result in captioned(captioner, new, batch_size=batch_size, **search):
                if on_result:
                    on_result(before + sum(counts), image, result)
                counts[isinstance(result, ImageError)] += 1
                rows.append(to_row(image.name, result))
                if len(rows) == batch_size:
                    write()
        finally:
            write()
    return BulkResult(counts[0], counts[1], before)


def run_fingerprint(captioner: ImageCaptioner, settings: GenerationConfig) -> dict[str, Any]:
    """What the rows of a table have in common: the model, by some of its weights, the precision and the search."""
    weights = hashlib.sha256(captioner.config.to_json().encode())
    for tensor in (captioner.decoder.embedding.weight, captioner.decoder.output.bias, captioner.decoder.hidden.weight):
        weights.update(tensor.detach().half().cpu().numpy().tobytes())
    precision = str(captioner.dtype)
    return {"model": weights.hexdigest()[:16], "precision": precision, "search": dataclasses.asdict(settings)}
