"""Parquet files as `datasets` stores captioned images -> an image folder with metadata.jsonl, written once."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_captioner.atomic import write_file, write_text
from hf_captioner.bulk.parquet import iter_rows
from hf_captioner.bulk.shards import MAX_PACKED_BYTES
from hf_captioner.errors import DataError
from hf_captioner.training.rows import MAX_CAPTION, split_named

CAPTIONS = ("captions", "caption", "sentences", "text")
"""Names of the column of captions: a string, or a list of strings; otherwise caption_0, caption_1, ..."""


def unpack(files: Sequence[Path], cache: Path, splits: Mapping[Path, str | None]) -> Path:
    """The folder below `cache` with these files' images and, in metadata.jsonl, their captions and splits.

    splits: each file's split, for rows without a column `split`. A changed file gives another folder; one that is
    whole is not written again. Raises DataError.
    """
    about = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns, splits[file]) for file in files]
    folder = cache / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    metadata = folder / "metadata.jsonl"
    if not metadata.exists():
        lines = [json.dumps(entry) for file in files for entry in _unpacked(file, folder, splits[file])]
        write_text(metadata, "\n".join(lines) + "\n")  # the last, so that it says that the folder is whole
    return folder


def _unpacked(file: Path, folder: Path, split: str | None) -> Iterator[dict[str, Any]]:
    """Write the images of a file's rows; yield what metadata.jsonl says of each."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            names, count = table.schema_arrow.names, table.metadata.num_rows
        image, captions = _columns(file, names)
        columns = [image, *captions, *(["split"] if "split" in names else [])]
        with tqdm(total=count, desc=file.name, unit=" images", dynamic_ncols=True) as progress:
            for row in iter_rows(file, columns):
                if row.nbytes > MAX_PACKED_BYTES:
                    most = f"at most {MAX_PACKED_BYTES:,} are read"
                    raise DataError(f"{file}, row {progress.n} has {row.nbytes:,} bytes; {most}.")
                yield _written(file, int(progress.n), row.to_pylist()[0], image, captions, folder, split)
                progress.update()
    except DataError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: text that is not UTF-8
        raise DataError(f"{file} cannot be read as Parquet: {error}.") from error


def _columns(file: Path, names: Sequence[str]) -> tuple[str, list[str]]:
    """The columns of images and of captions."""
    numbered = [name for name in names if re.fullmatch(r"caption_\d+", name)]
    captions = next(([name] for name in CAPTIONS if name in names), numbered)
    image = next((name for name in ("image", "img", "jpg") if name in names), None)
    if image is None or not captions:
        raise DataError(
            f"{file} has the columns {', '.join(names)}; expected `image` and one of {', '.join(CAPTIONS)}."
        )
    return image, captions


def _written(
    file: Path, number: int, row: dict[str, Any], image: str, captions: Sequence[str], folder: Path, split: str | None
) -> dict[str, Any]:
    value = row[image]
    content = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(content, bytes):
        raise DataError(f"{file}, row {number} holds no image in `{image}`; expected its file's bytes.")
    found = [text for column in captions for text in _texts(row[column])]
    if not found:
        raise DataError(f"{file}, row {number} has no caption in {', '.join(captions)}.")
    if max(map(len, found)) > MAX_CAPTION:
        raise DataError(f"{file}, row {number} has a caption of more than {MAX_CAPTION:,} characters.")
    split = split_named(row["split"], file) if row.get("split") else split
    # Named after its content, so that rows of the same image are one image with several captions.
    name = f"{hashlib.sha256(content).hexdigest()[:20]}{_suffix(content)}"
    path = folder / (split or "") / name
    if not path.exists():
        write_file(path, lambda temporary: temporary.write_bytes(content))
    entry = {"file_name": path.relative_to(folder).as_posix(), "captions": found}
    return {**entry, "split": split} if split else entry


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):  # {"raw": ["...", ...]}, as some of the Hub's sets have it
        value = value.get("raw")
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if isinstance(text, str)]


def _suffix(content: bytes) -> str:
    """The format of an image by its first bytes; Pillow reads it by them, too."""
    known = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
    return next((suffix for magic, suffix in known.items() if content.startswith(magic)), ".jpg")
