"""Captioned images in any of the usual layouts -> one list of records.

Told apart by what the folder (or file) holds:
    Flickr8k / Flickr30k     *.token.txt (`name.jpg#0<TAB>caption`) and split files *train*.txt, *dev*.txt, *test*.txt
    Kaggle                   captions.txt (`image,caption`)
    Karpathy                 JSON with "images": [{"filename", "sentences": [{"raw"}], "split"}]
    COCO                     captions_*.json with "images" and "annotations" (a file a split, named *train* / *val*)
    datasets image folder    metadata.jsonl (`file_name`, and `text`, `caption` or `captions`), a folder a split
    table                    CSV or TSV with the columns `path` (or image, file_name) and `caption`, perhaps `split`
"""

import csv
import io
import json
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_captioner.errors import DataError
from hf_captioner.images import IMAGE_SUFFIXES

SPLITS = {
    "train": "train",
    "restval": "train",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Record:
    """An image and what people wrote about it."""

    path: Path
    captions: tuple[str, ...]
    split: str
    """train, validation or test."""


Row = tuple[str, str, str | None]
"""An image's name as the data set writes it, one caption, and its split where the data says one."""


def load_records(source: Path, *, split_file: Path | None = None, seed: int | None = None) -> list[Record]:
    """Read the data set in `source`, a folder or its one caption file.

    Where the data names no splits, `split_file` (JSON, name -> split) does. Where that is not there yet, images
    are split 80 / 10 / 10 by `seed` and the outcome is written to it; without a seed no split is ever drawn.
    Raises DataError for missing images, empty captions, an image in two splits or in none, and a source that is
    none of the layouts.
    """
    source = Path(source)
    rows, root = _read(source)
    if not rows:
        raise DataError(f"{source} holds no captions; expected at least one image with a caption.")
    captions: dict[str, list[str]] = {}
    splits: dict[str, set[str]] = {}
    for name, caption, split in rows:
        captions.setdefault(name, []).append(caption.strip())
        splits.setdefault(name, set()).update([split] if split else [])
    _complain("images are in two splits", (name for name in splits if len(splits[name]) > 1))
    _complain("images have an empty caption", (name for name in captions if not all(captions[name])))
    found = _find_images(root, captions)
    _complain("images are missing", (name for name in captions if name not in found))
    if not any(splits.values()):
        chosen = _seeded_splits(list(captions), split_file, seed)
    else:
        _complain("images have no split where others have one", (name for name in splits if not splits[name]))
        chosen = {name: next(iter(names)) for name, names in splits.items()}
    return [Record(found[name], tuple(captions[name]), chosen[name]) for name in captions]


def load_split(source: Path, split: str, *, split_file: Path | None = None, model: str | None = None) -> list[Record]:
    """The records of one split, which is never drawn anew: without a `split_file`, a model's folder in a training run
    has it beside it. Raises DataError where there are none."""
    beside = Path(model).parent / "splits.json" if model else None
    found = load_records(source, split_file=split_file or (beside if beside and beside.exists() else None))
    records = [record for record in found if record.split == split]
    if not records:
        raise DataError(f"{source} has no {split} split.")
    return records


def _read(source: Path) -> tuple[list[Row], Path]:
    """The rows and the folder that images' names are relative to."""
    if not source.exists():
        raise DataError(f"{source} does not exist; expected a folder with images and captions.")
    if source.is_file():
        return _read_file(source), source.parent
    for pattern, reader in _FOLDER_LAYOUTS:
        files = [file for file in sorted(source.glob(pattern)) if ".lemma." not in file.name]
        if len(files) > 1 and reader is _read_tokens:
            raise DataError(
                f"{source} holds {', '.join(file.name for file in files)}; give the one to read as the data."
            )
        if files:
            return [row for file in files for row in reader(file)], source
    raise DataError(
        f"{source} is in no layout known; expected one of {', '.join(pattern for pattern, _ in _FOLDER_LAYOUTS)} in it."
    )


def _read_file(file: Path) -> list[Row]:
    if file.name.endswith(".token.txt") or file.suffix == ".token":
        return _read_tokens(file)
    reader = {
        ".json": _read_json,
        ".jsonl": _read_metadata,
        ".csv": _read_table,
        ".tsv": _read_table,
        ".txt": _read_table,
    }
    if file.suffix not in reader:
        raise DataError(
            f"{file} is in no layout known; expected one of *.token.txt, {', '.join('*' + s for s in reader)}."
        )
    return reader[file.suffix](file)


def _read_tokens(file: Path) -> list[Row]:
    """`name.jpg#0<TAB>caption`; images that no split file names are left out where there are split files."""
    splits: dict[str, list[str]] = {}
    for other in sorted(file.parent.glob("*.txt")):
        split = _split_in(other.stem)
        if other != file and split:
            for name in _text(other).split():
                splits.setdefault(name, []).append(split)
    rows: list[Row] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        name, tab, caption = line.partition("\t")
        if not line.strip():
            continue
        if not tab or "#" not in name:
            raise DataError(f"{file}, line {number} is {line[:60]!r}; expected `name.jpg#0`, a tab and the caption.")
        name = name.rpartition("#")[0]
        if splits:
            name = name if name in splits else Path(name).stem  # Flickr30k's split files leave out `.jpg`
            rows += [(name, caption, split) for split in splits.get(name, ())]
        else:
            rows.append((name, caption, None))
    _complain("images of the split files have no caption", set(splits) - {name for name, _, _ in rows})
    return rows


def _read_json(file: Path) -> list[Row]:
    try:
        data = json.loads(_text(file))
        if "annotations" in data:
            names = {image["id"]: image["file_name"] for image in data["images"]}
            split = _split_in(file.stem)
            return [(names[note["image_id"]], note["caption"], split) for note in data["annotations"]]
        return [
            (
                f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"],
                sentence["raw"],
                _split(image["split"], file),
            )
            for image in data["images"]
            for sentence in image["sentences"]
        ]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file} is neither Karpathy's nor COCO's JSON: {error!r}.") from error


def _read_metadata(file: Path) -> list[Row]:
    """A line an image; the file's folder is its split where it is named so (train/metadata.jsonl)."""
    split = SPLITS.get(file.parent.name)
    prefix = f"{file.parent.name}/" if split else ""
    rows: list[Row] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        try:
            entry = json.loads(line)
            given = entry.get("captions") or entry.get("caption") or entry.get("text") or ""
            own = _split(entry["split"], file) if "split" in entry else split
            for caption in [given] if isinstance(given, str) else given:
                rows.append((prefix + entry["file_name"], caption, own))
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{file}, line {number}: {error!r}; expected a JSON object with `file_name` and `text`, `caption` or "
                "`captions`."
            ) from error
    return rows


def _read_table(file: Path) -> list[Row]:
    with io.StringIO(_text(file), newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
        columns = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        path = next((column for column in ("path", "image", "file_name") if column in columns), None)
        if path is None or "caption" not in columns:
            raise DataError(f"{file} has the columns {columns}; expected `path` (or image, file_name) and `caption`.")
        rows: list[Row] = []
        for row in reader:
            if not row[path]:
                raise DataError(f"{file}, line {reader.line_num} names no image; expected a {path}.")
            rows.append((row[path], row["caption"] or "", _split(row["split"], file) if row.get("split") else None))
        return rows


_FOLDER_LAYOUTS: tuple[tuple[str, Callable[[Path], list[Row]]], ...] = (
    ("*.token.txt", _read_tokens),
    ("*.token", _read_tokens),
    ("captions.txt", _read_table),
    ("dataset*.json", _read_json),
    ("captions*.json", _read_json),
    ("annotations/captions*.json", _read_json),
    ("metadata.jsonl", _read_metadata),
    ("*/metadata.jsonl", _read_metadata),
    ("*.csv", _read_table),
    ("*.tsv", _read_table),
)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read as UTF-8 text: {error}.") from error


def _split(name: str, file: Path) -> str:
    if name not in SPLITS:
        raise DataError(f"{file} has the split {name!r}; expected one of {', '.join(SPLITS)}.")
    return SPLITS[name]


def _split_in(stem: str) -> str | None:
    """The split that a file's name names: Flickr_8k.trainImages, captions_val2017."""
    return next((split for word, split in SPLITS.items() if word in stem.lower()), None)


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
            kept: dict[str, str] = json.loads(_text(file))
        except json.JSONDecodeError as error:
            raise DataError(f"{file} is not JSON ({error}); expected a training run's splits.json.") from error
        if set(kept) != set(names):
            raise DataError(
                f"{file} splits {len(kept)} images, the data has {len(names)} and not the same; delete it to "
                "split anew."
            )
        return {name: _split(split, file) for name, split in kept.items()}
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
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        unfinished.write_text(json.dumps(chosen, indent=0))
        os.replace(unfinished, file)
    return chosen


def _complain(what: str, names: Iterable[Any]) -> None:
    faults = sorted(names)
    if faults:
        raise DataError(f"{len(faults)} {what}: {', '.join(map(str, faults[:10]))}{', ...' * (len(faults) > 10)}.")
