"""Generated archives of images, in every form that they come in."""

import io
import tarfile
from pathlib import Path

import datasets

from tests.conftest import generated


def encoded(index: int, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    generated(index).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, count: int, *, mode: str = "w") -> Path:
    """A WebDataset shard: each image with a text of the same key."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for index in range(count):
            for suffix, content in (("jpg", encoded(index % 50)), ("txt", b"a text")):
                member = tarfile.TarInfo(f"{index:06d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def data_set(count: int, *, bad: int | None = None) -> datasets.Dataset:
    rows = [
        {"image": {"bytes": encoded(index, "PNG"), "path": f"{index}.png"}, "label": index} for index in range(count)
    ]
    if bad is not None:
        rows[bad]["image"]["bytes"] = b"no image"  # type: ignore[index]
    return datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
