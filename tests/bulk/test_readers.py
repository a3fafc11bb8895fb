"""Images come from files, folders, tar shards, tables and data sets; what is broken spoils nothing else."""

import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from hf_captioner import ImageCaptioner, ImageError, caption_many, iter_images
from hf_captioner.bulk.readers import read_sources, shards
from hf_captioner.bulk.shards import SHARD_SIZE, Discovered, NamedImage
from hf_captioner.bulk.tar import TarShard
from hf_captioner.images import MAX_FILE_BYTES, open_image
from tests.bulk.archive import data_set, encoded, write_tar
from tests.conftest import generated

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")


def test_every_kind_of_source_gives_the_same_images(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    for index in range(3):
        (folder / "below" / f"{index}.png").write_bytes(encoded(index, "PNG"))
    (folder / "notes.txt").write_text("not an image, and not tried")
    data = data_set(3)
    data.to_parquet(tmp_path / "table.parquet")
    data.save_to_disk(tmp_path / "saved")
    pyarrow.parquet.write_table(
        pyarrow.table({"jpg": [encoded(index, "PNG") for index in range(3)]}), tmp_path / "plain.parquet"
    )
    expected = [generated(index).tobytes() for index in range(3)]
    for source, names in {
        folder: [f"{folder}/below/{index}.png" for index in range(3)],
        tmp_path / "table.parquet": [f"{tmp_path}/table.parquet#{index}" for index in range(3)],
        tmp_path / "plain.parquet": [f"{tmp_path}/plain.parquet#{index}" for index in range(3)],
        tmp_path / "saved": [f"{tmp_path}/saved#{index}" for index in range(3)],
    }.items():
        images = list(iter_images(source))
        assert [image.name for image in images] == names
        assert [open_image(image.image).tobytes() for image in images] == expected  # type: ignore[arg-type]
    for rows in (data, data.to_iterable_dataset(), [generated(index) for index in range(3)]):
        images = list(iter_images(rows))
        assert [image.name for image in images] == ["#0", "#1", "#2"]
        assert [open_image(image.image).tobytes() for image in images] == expected  # type: ignore[arg-type]


def test_a_name_is_the_path_as_a_person_would_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.png", "below/b.png"):
        generated(1).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert [image.name for image in iter_images(".", "./below/", "below//b.png")] == [
        "a.png",
        "below/b.png",
        "below/b.png",
        "below/b.png",
    ]


@pytest.mark.parametrize(("name", "mode"), [("s.tar.gz", "w:gz"), ("s.tgz", "w:gz"), ("misnamed.tar", "w:xz")])
def test_a_compressed_tar_file_is_one_shard(tmp_path: Path, name: str, mode: str) -> None:
    path = write_tar(tmp_path / name, SHARD_SIZE + 5, mode=mode)
    assert list(shards([path], Discovered())) == [TarShard(str(path))]
    assert [image.name for image in iter_images(path)] == [f"{path}/{i:06d}.jpg" for i in range(SHARD_SIZE + 5)]


LONG = "a folder whose name is not short/" * 5  # more than the 100 bytes of a header


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_shard_of_a_tar_file_begins_at_its_first_image(tmp_path: Path, format: int) -> None:
    """Also where a long or foreign name stands in a header before the member's own."""
    path, names = tmp_path / "s.tar", []
    with tarfile.open(path, "w", format=format, pax_headers={"comment": "a global header"}) as tar:
        for index in range(2 * SHARD_SIZE + 3):
            long = format != tarfile.USTAR_FORMAT and index % 2 == 0
            names.append(f"{LONG if long else ''}{index}{'é' if index % 3 else ''}.jpg")
            for name in (names[-1], f"{index}.txt"):
                member, content = tarfile.TarInfo(name), encoded(index % 7)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    found = list(shards([path], Discovered()))
    assert [shard.count for shard in found] == [SHARD_SIZE, SHARD_SIZE, 3]
    images = [image for shard in reversed(found) for image in shard]  # each by itself
    assert [image.name for image in images] == [
        f"{path}/{name}" for name in names[2 * SHARD_SIZE :] + names[SHARD_SIZE : 2 * SHARD_SIZE] + names[:SHARD_SIZE]
    ]
    assert [image.image for image in images[:3]] == [encoded((2 * SHARD_SIZE + i) % 7) for i in range(3)]


def test_a_global_header_counts_for_every_shard_after_it(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", pax_headers={"path": "all/are/called/this.jpg"}) as tar:
        for index in range(SHARD_SIZE + 1):
            tar.addfile(tarfile.TarInfo(f"{index}.jpg"))
    last = list(shards([path], Discovered()))[-1]
    assert [image.name for image in last] == [f"{path}/all/are/called/this.jpg"]


def test_the_time_of_a_tar_file_grows_with_its_size_alone(tmp_path: Path) -> None:
    """Bytes read, which unlike seconds are the same on every run."""
    read = []
    for count in (4, 16):
        path = tmp_path / f"{count}.tar"
        with tarfile.open(path, "w") as tar:
            for index in range(count * SHARD_SIZE):
                member = tarfile.TarInfo(f"{index:06d}.jpg")
                member.size = 512
                tar.addfile(member, io.BytesIO(bytes(512)))
        before = _bytes_read()
        assert sum(1 for _ in iter_images(path)) == count * SHARD_SIZE
        read.append((_bytes_read() - before) / count)
    assert read[1] < 1.1 * read[0]


def _bytes_read() -> int:
    """By this process so far, from the page cache or the disk."""
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])  # type: ignore[index]


def test_shards_are_read_lazily_and_cover_each_image_once(tmp_path: Path) -> None:
    endless = (f"{index}.jpg" for index in itertools.count())
    assert next(shards(endless, Discovered())).count == SHARD_SIZE
    table = tmp_path / "table.parquet"
    data_set(2 * SHARD_SIZE + 1).to_parquet(table, batch_size=100)
    found = list(shards([table], Discovered()))
    assert [shard.count for shard in found] == [300, 213]  # whole row groups
    assert [image.name for shard in found for image in shard] == [f"{table}#{row}" for row in range(513)]


def test_a_large_row_group_is_read_once_and_piece_by_piece(tmp_path: Path) -> None:
    rows, size = 16_000, 4_000
    table = pyarrow.table({"image": [os.urandom(size) for _ in range(rows)]})
    pyarrow.parquet.write_table(table, tmp_path / "one.parquet", row_group_size=rows)
    del table
    before, read = pyarrow.total_allocated_bytes(), _bytes_read()
    allocated = [pyarrow.total_allocated_bytes() for _ in iter_images(tmp_path / "one.parquet")]
    assert len(allocated) == rows and max(allocated) - before < rows * size / 4
    assert _bytes_read() - read < 1.2 * rows * size


def test_a_source_is_walked_once_and_says_early_how_many_images_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(3):
        generated(index).save(tmp_path / f"{index}.png")
    write_tar(tmp_path / "a.tar", SHARD_SIZE + 1)
    write_tar(tmp_path / "z.tar.gz", 2, mode="w:gz")
    walked, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (walked.append(folder), scandir(folder))[1])
    discovered, totals = Discovered(), []
    for _ in read_sources([tmp_path], discovered):
        totals.append(discovered.total)
    assert totals == [SHARD_SIZE + 4] * (SHARD_SIZE + 4) + [None] * 2 and walked == [str(tmp_path)]
    discovered = Discovered()
    assert len(list(read_sources([[generated(1)] * 2, tmp_path / "0.png"], discovered))) == discovered.total == 3


def test_what_is_broken_is_named_and_the_rest_is_read(tmp_path: Path, saved_captioner: ImageCaptioner) -> None:
    whole = write_tar(tmp_path / "whole.tar", 4)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: 512 * 8 + 700])
    damaged = bytearray(whole.read_bytes())
    third = damaged.index(b"000001.jpg")
    damaged[third : third + 100] = b"x" * 100
    (tmp_path / "damaged.tar").write_bytes(damaged)
    (tmp_path / "no.tar").write_text("no tar file")
    data_set(3).save_to_disk(tmp_path / "torn")
    for part in (tmp_path / "torn").glob("*.arrow"):
        part.write_bytes(b"torn")
    assert "the saved data set cannot be read" in str(next(iter_images(tmp_path / "torn")).image)
    (tmp_path / "no.parquet").write_bytes(b"PAR1 and nothing else")
    pyarrow.parquet.write_table(pyarrow.table({"x": [1], "y": ["a"]}), tmp_path / "numbers.parquet")
    data_set(3, bad=1).to_parquet(tmp_path / "bad.parquet")
    found = {
        name: list(iter_images(tmp_path / name))
        for name in ("cut.tar", "damaged.tar", "no.tar", "no.parquet", "numbers.parquet", "bad.parquet", "gone.tar")
    }
    reasons = {name: str(each[-1].image) for name, each in found.items() if isinstance(each[-1].image, ImageError)}
    assert "cannot be read any further" in reasons["cut.tar"] and len(found["cut.tar"]) > 1
    assert found["cut.tar"][0].image == found["damaged.tar"][0].image == encoded(0)
    assert f"any further (bad checksum at byte {third:,})" in reasons["damaged.tar"] and len(found["damaged.tar"]) == 2
    assert "the tar file cannot be read" in reasons["no.tar"] and "the tar file cannot be read" in reasons["gone.tar"]
    assert "the table cannot be read" in reasons["no.parquet"]
    assert "no column of images; found x, y" in reasons["numbers.parquet"]
    results = list(saved_captioner.stream(image.image for image in found["bad.parquet"]))
    assert [isinstance(result, ImageError) for result in results] == [False, True, False]


def test_a_member_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "bomb.tar", 1)
    header = bytearray(path.read_bytes())
    header[124:136] = f"{MAX_FILE_BYTES + 1:011o}\0".encode()
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    with path.open("wb") as file:
        file.write(header[:512])
        file.truncate(MAX_FILE_BYTES + 5000)
    [found] = iter_images(path)
    assert isinstance(found.image, ImageError) and "at most" in str(found.image)


def test_a_row_without_an_image_is_an_error_in_its_place() -> None:
    rows: list[Any] = [{"label": 1}, {"image": None}, {"path": 5}, {"image": {"path": 5}}, 7, {}]
    images = list(iter_images([*rows, {"jpg": encoded(0), "txt": "a", "json": {"a": 1}}]))
    reasons = [
        "#0: there is no image in the row; found label",
        "#1: the row has no image",
        "#2: the image is 5; expected a path",
        "#3: the image is 5; expected a path",
        "#4: the image is 7; expected a path",
        "#5: there is no image in the row; found nothing",
    ]
    for image, reason in zip(images, reasons, strict=False):
        assert isinstance(image.image, ImageError) and reason in str(image.image)
    assert images[-1].image == encoded(0)


def test_a_url_is_one_sentence(tmp_path: Path) -> None:
    url = "https://example.com/a.jpg"
    for image in (*iter_images(url), *iter_images([url])):
        assert image.name == url and str(image.image).startswith(f"{url}: a URL is not read; download it first")
    [image] = iter_images([{"image": {"bytes": None, "path": url}}])
    assert f"#0: {url}: a URL is not read" in str(image.image)


def test_three_doors_take_the_same_things(saved_captioner: ImageCaptioner, tmp_path: Path) -> None:
    """`iter_images`, `stream` and `caption_many`: one caption for each element, in order."""
    files = [encoded(index, "PNG") for index in range(3)]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, content in zip(paths, files, strict=True):
        path.write_bytes(content)
    numbers = ["#0", "#1", "#2"]
    rows = [{"image": {"bytes": files[0], "path": None}}, {"image": paths[1]}, {"png": files[2]}]
    expected = [caption.text for caption in saved_captioner.caption(files, num_beams=1)]
    cases: list[tuple[Any, list[str]]] = [
        (tmp_path, list(map(str, paths))),
        (paths, list(map(str, paths))),
        ((str(path) for path in paths), list(map(str, paths))),
        (files, numbers),
        ([generated(0), io.BytesIO(files[1]), np.asarray(generated(2))], numbers),
        (rows, numbers),
        (data_set(3), numbers),
        (data_set(3).to_iterable_dataset(), numbers),
        (iter_images(*paths), list(map(str, paths))),
        ([NamedImage("a", files[0]), NamedImage("b", paths[1]), NamedImage("c", files[2])], ["a", "b", "c"]),
    ]
    for number, (images, names) in enumerate(cases):
        images = list(images) if isinstance(images, Iterator) else images  # to read it three times
        assert [image.name for image in iter_images(images)] == names
        assert [str(caption) for caption in saved_captioner.stream(images, num_beams=1)] == expected
        out = tmp_path / f"out{number}" / "captions.jsonl"
        result = caption_many(saved_captioner, images, out, num_beams=1)
        assert (result.captioned, result.failed) == (3, 0)
        stored = [json.loads(line) for line in out.read_text().splitlines()]
        assert [(row["path"], row["caption"]) for row in stored] == list(zip(names, expected, strict=True))
    result = caption_many(saved_captioner, paths[0], tmp_path / "one.csv", num_beams=1)
    assert result.captioned == 1


@pytest.mark.parametrize(
    "images",
    [
        b"bytes",
        bytearray(b"bytes"),
        np.zeros((4, 4, 3), np.uint8),
        torch.zeros(2, 3, 8, 8),
        generated(1),
        io.BytesIO(),
        {"image": b""},
        5,
        None,
    ],
)
def test_a_single_image_or_row_is_no_source(images: Any) -> None:
    with pytest.raises(TypeError, match="put a single image into a list"):
        iter_images(images)


# -- links -------------------------------------------------------------------------------------------------------------


def found(folder: Path) -> list[str]:
    discovered = Discovered()
    names = [image.name.removeprefix(f"{folder}/") for image in read_sources([folder], discovered)]
    assert discovered.total == len(names)
    return names


def test_a_linked_folder_is_followed_once_and_no_loop_is_walked(tmp_path: Path) -> None:
    inside, outside = tmp_path / "folder", tmp_path / "outside"
    for folder in (inside / "real", outside / "deep"):
        folder.mkdir(parents=True)
    for path in (inside / "real" / "a.png", outside / "b.png", outside / "deep" / "c.png"):
        generated(1).save(path)
    before = found(inside)
    assert before == ["real/a.png"]
    (inside / "a-link").symlink_to(outside)
    (inside / "another-link").symlink_to(outside)
    (inside / "deep-link").symlink_to(outside / "deep")
    assert found(inside) == ["a-link/b.png", "a-link/deep/c.png", "real/a.png"]
    (inside / "0-to-real").symlink_to("real")  # its images keep the name that they have without the link
    (inside / "real" / "up").symlink_to(inside)
    (outside / "back").symlink_to(inside)
    (outside / "itself").symlink_to("itself")
    (outside / "gone").symlink_to("nowhere")
    assert found(inside) == ["a-link/b.png", "a-link/deep/c.png", "real/a.png"]


def test_a_link_to_the_folder_above_gives_each_image_once(tmp_path: Path) -> None:
    for name in ("folder", "beside"):
        (tmp_path / name).mkdir()
        generated(1).save(tmp_path / name / f"{name}.png")
    (tmp_path / "folder" / "above").symlink_to("..")
    assert found(tmp_path / "folder") == ["above/beside/beside.png", "folder.png"]


def test_a_source_that_is_a_link_is_walked(tmp_path: Path) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    generated(1).save(tmp_path / "folder" / "below" / "a.png")
    (tmp_path / "link").symlink_to("folder")
    assert found(tmp_path / "link") == ["below/a.png"]


def test_elements_of_a_generator_are_images_in_every_form(image_path: Path) -> None:
    content, image = image_path.read_bytes(), open_image(image_path)
    array = np.asarray(image)

    def forms() -> Iterator[Any]:
        yield from (image_path, content, bytearray(content), memoryview(content), io.BytesIO(content), image, array)
        yield torch.from_numpy(array.copy()).permute(2, 0, 1)
        yield {"image": array / 255}
        yield {"label": 3, "pixels": torch.from_numpy(array.copy())}
        with image_path.open("rb") as file:
            yield file

    read = [open_image(found.image).tobytes() for found in iter_images(forms())]  # type: ignore[arg-type]
    assert read == [image.tobytes()] * 11
