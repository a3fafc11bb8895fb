"""A data set in any of the usual layouts (layouts.py), or one of the Hub's -> a list of records."""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from hf_captioner.atomic import write_text
from hf_captioner.errors import DataError
from hf_captioner.images import IMAGE_SUFFIXES
from hf_captioner.training.hub_data import local_data
from hf_captioner.training.layouts import complain, read_rows, read_text, split_named

UNPACKED = "images"
"""Folder beside splits.json for the images of Parquet files."""


@dataclass(frozen=True)
class Record:
    """An image and what people wrote about it."""

    path: Path
    captions: tuple[str, ...]
    split: str
    """train, validation or test."""


def load_records(source: str | Path, *, split_file: Path | None = None, seed: int | None = None) -> list[Record]:
    """Read the data set in `source`: a folder, its one caption file, or a data set's id on the Hub.

    Where the data names no splits, `split_file` (JSON, name -> split) does. Where that is not there yet, images
    are split 80 / 10 / 10 by `seed` and the outcome is written to it; without a seed no split is ever drawn.
    Raises DataError for missing images, empty captions, an image in two splits or in none, and a source that is
    none of the layouts.
    """
    cache = split_file.parent if split_file else Path(constants.HF_HOME) / "hf-captioner"
    rows, root = read_rows(local_data(source), cache / UNPACKED)
    if not rows:
        raise DataError(f"{source} holds no captions; expected at least one image with a caption.")
    captions: dict[str, list[str]] = {}
    splits: dict[str, set[str]] = {}
    for name, caption, split in rows:
        captions.setdefault(name, []).append(caption.strip())
        splits.setdefault(name, set()).update([split] if split else [])
    complain("images are in two splits", (name for name in splits if len(splits[name]) > 1))
    complain("images have an empty caption", (name for name in captions if not all(captions[name])))
    found = _find_images(root, captions)
    complain("images are missing", (name for name in captions if name not in found))
    if not any(splits.values()):
        chosen = _seeded_splits(list(captions), split_file, seed)
    else:
        complain("images have no split where others have one", (name for name in splits if not splits[name]))
        chosen = {name: next(iter(names)) for name, names in splits.items()}
    return [Record(found[name], tuple(captions[name]), chosen[name]) for name in captions]


def load_split(
    source: str | Path, split: str, *, split_file: Path | None = None, model: str | None = None
) -> list[Record]:
    """The records of one split, which is never drawn anew.

    Without a `split_file`, the splits.json beside a model's folder is used, as a training run leaves it there.
    Raises DataError where the split is empty.
    """
    beside = Path(model).parent / "splits.json" if model else None
    found = load_records(source, split_file=split_file or (beside if beside and beside.exists() else None))
    records = [record for record in found if record.split == split]
    if not records:
        raise DataError(f"{source} has no {split} split.")
    return records


def _find_images(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Each name's file: where the name says, else anywhere below the folder by its base name."""
    found = {name: root / name for name in names if (root / name).is_file()}
    missing = [name for name in names if name not in found]
    if missing:
        images = [path for path in sorted(root.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
        everywhere = {path.stem: path for path in images} | {path.name: path for path in images}
        found |= {name: everywhere[Path(name).name] for name in missing if Path(name).name in everywhere}
    return found


def _seeded_splits(names: Sequence[str], file: Path | None, seed: int | None) -> dict[str, str]:
    if file is not None and file.exists():
        try:
            kept: dict[str, str] = json.loads(read_text(file))
        except json.JSONDecodeError as error:
            raise DataError(f"{file} is not JSON ({error}); expected a training run's splits.json.") from error
        if set(kept) != set(names):
            raise DataError(
                f"{file} splits {len(kept)} images, the data has {len(names)} and not the same; delete it to "
                "split anew."
            )
        return {name: split_named(split, file) for name, split in kept.items()}
    if seed is None:
        raise DataError(
            f"The data names no splits, and {file or 'no file'} does; give the training run's splits.json as --splits."
        )
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    tenth = max(1, len(shuffled) // 10)
    chosen = dict.fromkeys(names, "train")
    chosen |= dict.fromkeys(shuffled[:tenth], "validation") | dict.fromkeys(shuffled[tenth : 2 * tenth], "test")
    if file is not None:
        write_text(file, json.dumps(chosen, indent=0))
    return chosen
