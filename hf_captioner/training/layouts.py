"""The layouts that captioned images come in -> rows of (image, caption, split).

Told apart by what the folder (or file) holds:
    Flickr8k / Flickr30k     *.token.txt (`name.jpg#0<TAB>caption`) and split files *train*.txt, *dev*.txt, *test*.txt
    Kaggle                   captions.txt (`image,caption`)
    Karpathy                 JSON with "images": [{"filename", "sentences": [{"raw"}], "split"}]
    COCO                     captions_*.json with "images" and "annotations" (a file a split, named *train* / *val*)
    datasets image folder    metadata.jsonl (`file_name`, and `text`, `caption` or `captions`), a folder a split
    table                    CSV or TSV with the columns `path` (or image, file_name) and `caption`, perhaps `split`
    Parquet                  the images themselves and their captions, as `datasets` stores them (see parquet.py)
"""

import csv
import io
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

from hf_captioner.errors import DataError
from hf_captioner.images import IMAGE_SUFFIXES
from hf_captioner.training.parquet import unpack
from hf_captioner.training.rows import SPLITS, Row, complain, counted, read_text, split_in, split_named


def read_rows(source: Path, unpacked: Path) -> tuple[list[Row], Path]:
    """The rows of a folder or a caption file, and the folder that the images' names are relative to.

    unpacked: where the images of Parquet files are written. Raises DataError.
    """
    if not source.exists():
        raise DataError(f"{source} does not exist; expected a folder with images and captions.")
    if source.suffix == ".parquet" and source.is_file():
        return _read_parquet([source], unpacked)
    if source.is_file():
        return _read_file(source), source.parent
    try:
        os.scandir(source).close()  # glob would find nothing in a folder that may not be read
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error.strerror}); expected a folder with images.") from error
    for pattern, reader in _FOLDER_LAYOUTS:
        files = [file for file in sorted(source.glob(pattern)) if ".lemma." not in file.name]
        if len(files) > 1 and reader is _read_tokens:
            raise DataError(
                f"{source} holds {', '.join(file.name for file in files)}; give the one to read as the data."
            )
        if files:
            return [row for file in files for row in reader(file)], source
    for pattern in PARQUET:
        if tables := sorted(file for file in source.glob(pattern) if file.is_file()):
            return _read_parquet(tables, unpacked)
    if images := sum(path.suffix.lower() in IMAGE_SUFFIXES for path in source.rglob("*")):
        folder, table = shlex.quote(str(source)), shlex.quote(str(source / "captions.csv"))
        raise DataError(
            f"{source} holds {counted(images, 'image')} and no captions to train on; `hf-captioner caption {folder} "
            f"--out {table}` writes a table with a caption for each, to be corrected first."
        )
    known = ", ".join([*(pattern for pattern, _ in _FOLDER_LAYOUTS), *PARQUET])
    raise DataError(f"{source} is in no layout known; expected one of {known} in it.")


def _read_parquet(files: list[Path], unpacked: Path) -> tuple[list[Row], Path]:
    folder = unpack(files, unpacked, {file: split_in(file.stem) for file in files})
    return _read_metadata(folder / "metadata.jsonl"), folder


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
        known = ", ".join(f"*{suffix}" for suffix in (".token.txt", *reader, ".parquet"))
        raise DataError(f"{file} is in no layout known; expected one of {known}.")
    return reader[file.suffix](file)


def _read_tokens(file: Path) -> list[Row]:
    """`name.jpg#0<TAB>caption`; images that no split file names are left out where there are split files."""
    splits: dict[str, list[str]] = {}
    for other in sorted(file.parent.glob("*.txt")):
        split = split_in(other.stem)
        if other != file and split:
            for name in read_text(other).split():
                splits.setdefault(name, []).append(split)
    rows: list[Row] = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
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
    without = set(splits) - {name for name, _, _ in rows}
    complain("images in its split files that have no caption", without, "caption them, or take them off these files")
    return rows


def _read_json(file: Path) -> list[Row]:
    try:
        data = json.loads(read_text(file))
        if "annotations" in data:
            names = {image["id"]: image["file_name"] for image in data["images"]}
            split = split_in(file.stem)
            return [(names[note["image_id"]], note["caption"], split) for note in data["annotations"]]
        return [
            (
                f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"],
                sentence["raw"],
                split_named(image["split"], file),
            )
            for image in data["images"]
            for sentence in image["sentences"]
        ]
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} is neither Karpathy's nor COCO's JSON: {error!r}.") from error


def _read_metadata(file: Path) -> list[Row]:
    """A line an image; the file's folder is its split where it is named so (train/metadata.jsonl)."""
    split = SPLITS.get(file.parent.name)
    prefix = f"{file.parent.name}/" if split else ""
    rows: list[Row] = []
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            given = next((entry[name] for name in ("captions", "caption", "text") if entry.get(name)), "")
            own = split_named(entry["split"], file) if "split" in entry else split
            for caption in given if isinstance(given, list) else [given]:
                rows.append((prefix + entry["file_name"], caption, own))
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{file}, line {number}: {error!r}; expected a JSON object with `file_name` and `text`, `caption` or "
                "`captions`."
            ) from error
    return rows


def _read_table(file: Path) -> list[Row]:
    with io.StringIO(read_text(file), newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",")
        try:
            columns = [column.strip() for column in reader.fieldnames or ()]
        except csv.Error as error:
            raise DataError(f"{file}, line 1 cannot be read as a table: {error}.") from error
        reader.fieldnames = columns
        path = next((column for column in ("path", "image", "file_name") if column in columns), None)
        if path is None or "caption" not in columns:
            raise DataError(f"{file} has the columns {columns}; expected `path` (or image, file_name) and `caption`.")
        rows: list[Row] = []
        for row in _table_rows(file, reader):
            if not (row[path] or "").strip():
                raise DataError(f"{file}, line {reader.line_num} names no image; expected a {path}.")
            rows.append(
                (row[path], row["caption"] or "", split_named(row["split"], file) if row.get("split") else None)
            )
        return rows


def _table_rows(file: Path, reader: "csv.DictReader[str]") -> Iterator[dict[str, str]]:
    """The rows that hold anything. Raises DataError where the table is none, or a cell is larger than `csv` reads."""
    try:
        for row in reader:
            if any(isinstance(value, str) and value.strip() for value in row.values()):
                yield row
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num + 1} cannot be read as a table: {error}.") from error


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


PARQUET = ("*.parquet", "data/*.parquet", "*/*.parquet")
"""Where Parquet files are looked for in a folder, in this order."""
