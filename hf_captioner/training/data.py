"""A data set in any of the usual layouts (layouts.py), or one of the Hub's -> a list of records."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from tqdm import tqdm

from hf_captioner.errors import DataError, ImageError
from hf_captioner.images import open_image
from hf_captioner.training.hub_data import local_data
from hf_captioner.training.image_files import find_images
from hf_captioner.training.layouts import read_rows
from hf_captioner.training.rows import MAX_CAPTION, Row, complain, counted, listed, shortened
from hf_captioner.training.splits import DrawnSplits

UNPACKED = "images"
"""Folder beside splits.json for the images of Parquet files."""

NAMELESS = "an unnamed data set"
"""What the card calls a data set that has neither a Hub id nor a name that was given."""

SMALL = 64
"""A JPEG is decoded at a reduced scale where only its being readable matters: its sides at least this many pixels."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """An image and what people wrote about it."""

    path: Path
    captions: tuple[str, ...]
    split: str
    """train, validation or test."""
    data_set: str = ""
    """What the log calls the data set that it belongs to: no two of a run have the same."""
    card_name: str = NAMELESS
    """What the card calls that data set."""
    weight: float = 1.0
    """How often an epoch of training shows it, on average."""


def load_records(
    source: str | Path, *, split_file: Path | None = None, seed: int | None = None, allow_outside_paths: bool = False
) -> list[Record]:
    """Read the data set in `source`: a folder, its one caption file, or a data set's id on the Hub.

    Where the data names no splits, `split_file` does. Where that is not there yet, images are split 80 / 10 / 10 by
    `seed` and the outcome is written to it; without a seed no split is ever drawn (`splits.py`).
    A caption without a letter is left out, and an image with no other caption; the log counts them.
    Raises DataError for missing images, images outside of the data's folder unless `allow_outside_paths`, captions
    that are empty or no text, an image in two splits or in none, and a source that is none of the layouts.
    """
    splits = DrawnSplits(split_file, seed)
    records = read_records(source, splits, allow_outside_paths=allow_outside_paths)
    splits.save()
    return records


def read_records(source: str | Path, drawn: DrawnSplits, *, allow_outside_paths: bool = False) -> list[Record]:
    """`load_records` with the splits of a run, which may have more data sets and saves their splits itself."""
    cache = drawn.file.parent if drawn.file else Path(constants.HF_HOME) / "hf-captioner"
    local = local_data(source)
    rows, root = read_rows(local.path, cache / UNPACKED)
    if not rows:
        raise DataError(f"{source} holds no captions; expected at least one image with a caption.")
    _check_captions(rows)
    captions: dict[str, list[str]] = {}
    splits: dict[str, set[str]] = {}
    for name, caption, split in rows:
        captions.setdefault(name, []).append(caption.strip())
        splits.setdefault(name, set()).update([split] if split else [])
    several = (name for name in splits if len(splits[name]) > 1)
    complain("images in two splits", several, "leave each in one")
    inside = [root.resolve(), local.home.resolve()]
    found = find_images(root, list(captions), inside, allow_outside=allow_outside_paths)
    if not any(splits.values()):
        chosen = drawn.of(list(captions))
    else:
        without = (name for name in splits if not splits[name])
        complain("images without a split where others have one", without, "give each image a split, or none")
        chosen = {name: next(iter(names)) for name, names in splits.items()}
    return _with_words([Record(found[name], tuple(captions[name]), chosen[name]) for name in captions])


def by_data_set(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each data set, in the order in which the data sets come."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.data_set, []).append(record)
    return found


def first_of_each(records: Iterable[Record], count: int | None) -> list[Record]:
    """The first so many records of each data set; all where count is None."""
    return [record for own in by_data_set(records).values() for record in own[:count]]


def readable_records(records: Sequence[Record], *, skip_broken: bool) -> list[Record]:
    """The records whose images can be read, in their order; each of the others is named in the log.

    Raises DataError for a broken image unless `skip_broken`, and where no image is left.
    """
    faults: dict[Path, str] = {}
    for record in tqdm(records, desc="check images", unit=" images", dynamic_ncols=True, leave=False):
        try:
            open_image(record.path, min_side=SMALL)
        except ImageError as error:
            faults[record.path] = shortened(error)
    kept = [record for record in records if record.path not in faults]
    if faults and not (skip_broken and kept):
        raise DataError(
            f"{len(faults)} of {len(records)} images cannot be read ({listed(faults.values())}); mend or remove them"
            + (", or leave them out with --skip-broken-images." if kept else ".")
        )
    for fault in faults.values():
        logger.warning("Left out: %s", fault)
    return kept


def _check_captions(rows: Iterable[Row]) -> None:
    """Raise DataError for captions that no captioner can learn from."""
    nameless = {repr(name) for name, _, _ in rows if not isinstance(name, str)}
    complain("image names that are not text", nameless, "write the file names as strings")
    numbers = {f"{name} ({caption!r})" for name, caption, _ in rows if not _is_text(caption)}
    complain("captions that are not text", numbers, "write sentences, or remove them")
    empty = {name for name, caption, _ in rows if not caption.strip()}
    complain("images with an empty caption", empty, "write sentences, or remove them")
    long = {name for name, caption, _ in rows if len(caption) > MAX_CAPTION}
    complain(f"images with a caption of more than {MAX_CAPTION:,} characters", long, "check the file's quotes")


def _is_text(caption: Any) -> bool:
    """Whether a caption is a string that can be written; JSON spells numbers, and halves of characters, too."""
    return isinstance(caption, str) and not any("\ud800" <= character <= "\udfff" for character in caption)


def _with_words(records: Sequence[Record]) -> list[Record]:
    """The records with those captions that hold a letter: emoji and figures are no words to a captioner."""
    kept = [(record, tuple(text for text in record.captions if any(map(str.isalpha, text)))) for record in records]
    lost = [record for record, captions in kept if captions != record.captions]
    if not lost:
        return list(records)
    without = [record.path.name for record, captions in kept if not captions]
    if len(without) == len(records):
        examples = listed(dict.fromkeys(record.captions[0] for record in records))
        raise DataError(f"No caption holds a word, only figures and signs: {examples}; expected sentences.")
    logger.warning(
        "Left out: %s without a word, of figures or signs only (%s), and with them %s that had no other.",
        counted(sum(len(record.captions) - len(captions) for record, captions in kept), "caption"),
        listed(record.path.name for record in lost),
        counted(len(without), "image"),
    )
    return [replace(record, captions=captions) for record, captions in kept if captions]
