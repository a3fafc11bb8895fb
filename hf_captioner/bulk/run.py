"""Many photographs into one table, in bounded memory: stopped at any moment and started again, it goes on."""

import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_captioner.bulk.readers import Photograph
from hf_captioner.bulk.writers import Outcome, Row, Table, open_table, row_of
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import SearchConfig
from hf_captioner.errors import ImageError


@dataclass(frozen=True)
class Tally:
    captioned: int
    failed: int
    """Photographs that could not be read; the table says why."""
    before: int
    """Photographs that were in the table already."""


def captioned(
    captioner: ImageCaptioner, given: Iterable[Photograph], *, batch_size: int = 32, **search: Any
) -> Iterator[tuple[Photograph, Outcome]]:
    """Each photograph with its caption, its captions, or why there is none; in their order, as `stream` goes."""
    ahead: deque[Photograph] = deque()

    def noted() -> Iterator[Photograph]:
        for photograph in given:
            ahead.append(photograph)
            yield photograph

    for outcome in captioner.stream(noted(), batch_size=batch_size, **search):
        yield ahead.popleft(), outcome


def caption_many(
    captioner: ImageCaptioner,
    given: Iterable[Photograph],
    out: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    total: int | None = None,
    progress: bool = False,
    **search: Any,
) -> Tally:
    """Caption what is not yet in the table `out`, whose name ends in .jsonl, .csv or .parquet (a folder).

    given: as `photographs` reads them. total: how many, for the bar on stderr. search: fields of SearchConfig.
    Raises ConfigError for a table that another model, search or program began, and OSError where it cannot be written;
    what was written stays whole, and the same call goes on from there.
    """
    with open_table(Path(out), job_of(captioner, captioner.search_settings(search))) as table:
        return caption_into(table, captioner, given, batch_size=batch_size, total=total, progress=progress, **search)


def caption_into(
    table: Table,
    captioner: ImageCaptioner,
    given: Iterable[Photograph],
    *,
    batch_size: int = 32,
    total: int | None = None,
    progress: bool = False,
    seen: Callable[[int, Photograph, Outcome], object] | None = None,
    **search: Any,
) -> Tally:
    """As `caption_many`, into an open table. seen: called before a row is written, with its number from 0 on."""
    before = len(table.done)
    new = (photograph for photograph in given if not table.done.take(photograph.name))
    counts, rows = [0, 0], list[Row]()
    with tqdm(
        total=total, initial=before, unit="photograph", disable=not progress, dynamic_ncols=True, smoothing=0.05
    ) as bar:
        try:
            for photograph, outcome in captioned(captioner, new, batch_size=batch_size, **search):
                if seen:
                    seen(before + sum(counts), photograph, outcome)
                counts[isinstance(outcome, ImageError)] += 1
                rows.append(row_of(photograph.name, outcome))
                if len(rows) == batch_size:
                    table.write(rows)
                    bar.update(len(rows))
                    rows = []
        finally:
            table.write(rows)
            bar.update(len(rows))
    return Tally(counts[0], counts[1], before)


def job_of(captioner: ImageCaptioner, settings: SearchConfig) -> dict[str, Any]:
    """What the rows of a table have in common: the model, by some of its weights, the precision and the search."""
    weights = hashlib.sha256(captioner.config.to_json().encode())
    for tensor in (captioner.decoder.embedding.weight, captioner.decoder.output.bias, captioner.decoder.hidden.weight):
        weights.update(tensor.detach().half().cpu().numpy().tobytes())
    precision = "bfloat16" if captioner.in_bfloat16 else "float32"
    return {"model": weights.hexdigest()[:16], "precision": precision, "search": dataclasses.asdict(settings)}
