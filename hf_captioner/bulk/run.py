"""Many images into one table, in bounded memory: stopped at any moment and started again, it goes on."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_captioner.bulk.readers import Source, read_sources
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
    images: Source | Iterable[Any],
    out: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    progress: bool = False,
    **search: Any,
) -> BulkResult:
    """Caption what is not yet in the table `out`, whose name ends in .jsonl, .csv or .parquet (a folder).

    images: a source or an iterable, as `iter_images` takes it. progress: a bar on stderr. search: fields of
    GenerationConfig. Raises ConfigError for a table that another model, search or program began, and OSError where it
    cannot be written; what was written stays whole, and the same call goes on from there.
    """
    discovered = Discovered()
    named = read_sources([images], discovered)
    with open_writer(Path(out), run_fingerprint(captioner, captioner.prepare_generation_config(search))) as writer:
        return caption_to_writer(
            writer, captioner, named, discovered=discovered, batch_size=batch_size, progress=progress, **search
        )


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


SAMPLING_FIELDS = ("temperature", "top_k", "top_p", "seed")
BEAM_SEARCH_FIELDS = ("num_beams", "num_beam_groups", "diversity_penalty")


def run_fingerprint(captioner: ImageCaptioner, generation_config: GenerationConfig) -> dict[str, Any]:
    """Everything that the rows of a table depend on, as JSON; runs whose fingerprints are equal may share a table.

    weights: SHA-256 of all parameters, the encoder's too, in float16, as a checkpoint stores them. tokenizer: SHA-256
    of the vocabulary in the order of its ids. config: all fields of CaptionerConfig but dropout, which is training's;
    the confidence parameters are among them, because every row holds a confidence. generation_config: all fields, but
    sampling's only with `do_sample` and beam search's only without. dtype: what captions are computed in.

    Evaluation results, the card, the device, the batch size and the checkpoint's place are no part of it.
    """
    weights = hashlib.sha256()
    for name, parameter in sorted(captioner.named_parameters()):
        weights.update(f"{name} {list(parameter.shape)}".encode())
        weights.update(parameter.detach().half().cpu().numpy().tobytes())
    tokenizer = captioner.tokenizer
    vocabulary = "\n".join(tokenizer.word(i) for i in range(len(tokenizer)))
    config, generation = captioner.config.to_dict(), generation_config.to_dict()
    unused = BEAM_SEARCH_FIELDS if generation_config.do_sample else SAMPLING_FIELDS
    return {
        "weights": weights.hexdigest(),
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "config": {name: value for name, value in config.items() if name != "dropout"},
        "generation_config": {name: value for name, value in generation.items() if name not in unused},
        "dtype": str(captioner.dtype).removeprefix("torch."),
    }
