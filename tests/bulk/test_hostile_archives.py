"""Archives and tables of strangers: what they claim takes no memory, what they name outside themselves is not read."""

import io
import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from hf_captioner import ImageError, iter_images
from hf_captioner.bulk import parquet, shards, tables
from hf_captioner.bulk.shards import NamedImage, next_batch
from tests import forked
from tests.bulk.archive import encoded
from tests.bulk.test_run import rows_of
from tests.conftest import generated

MEMORY = 150_000
"""KiB that a hostile archive may take beside what one image takes."""


def header(kind: bytes, size: int, name: str = "x.jpg") -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def long_header(kind: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(header(kind, 1 << 30))
            file.truncate(513 + (1 << 30))  # a hole: it takes no room on the disk
            file.seek(0, os.SEEK_END)
            file.write(header(tarfile.REGTYPE, 0))

    return write


def sparse(path: Path) -> None:
    """A sparse member whose list of pieces has no end."""
    first = bytearray(header(tarfile.GNUTYPE_SPARSE, 0))
    first[482] = 1
    first[148:156] = b" " * 8
    first[148:156] = f"{sum(first):06o}\0 ".encode()
    more = (b"00000000001\0" * 42).ljust(504, b"0") + b"\1" + bytes(7)
    path.write_bytes(bytes(first) + more * 400_000)


def many_headers(path: Path) -> None:
    path.write_bytes((header(tarfile.GNUTYPE_LONGNAME, 2) + b"x".ljust(512, b"\0")) * 900)


def global_headers(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        for index in range(300):
            assert tar.fileobj
            tar.fileobj.write(tarfile.TarInfo.create_pax_global_header({f"a{index}": "x" * 1000}))


def torn_xz(path: Path) -> None:
    """Damaged in its middle, so that it is a tar file until then."""
    with tarfile.open(path, "w:xz", preset=0) as tar:
        for index in range(20):
            member = tarfile.TarInfo(f"{index}.jpg")
            member.size = 100_000
            tar.addfile(member, io.BytesIO(os.urandom(50_000).hex().encode()))
    content = bytearray(path.read_bytes())
    content[500_000:500_600] = bytes(600)
    path.write_bytes(content)


def long_name(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo(f"{'n' * 100_000}.jpg"))


@pytest.mark.parametrize(
    "write",
    [
        long_header(tarfile.GNUTYPE_LONGNAME),
        long_header(tarfile.XHDTYPE),
        long_header(tarfile.XGLTYPE),
        sparse,
        many_headers,
        global_headers,
        torn_xz,
        long_name,
    ],
    ids=["GNU long name", "pax", "global pax", "sparse", "many headers", "global headers", "torn xz", "long name"],
)
def test_a_tar_file_is_one_sentence_in_bounded_memory(
    checkpoint: Path, tmp_path: Path, write: Callable[[Path], None], ordinary: int
) -> None:
    path, out = tmp_path / "hostile.tar", tmp_path / "t.jsonl"
    write(path)
    done = forked.run("hf_captioner.cli", "caption", path, "--model", checkpoint, "--out", out)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.memory < ordinary + MEMORY
    assert f"{path}: the tar file cannot be read" in str(rows_of(out)[-1]["error"])


def test_an_xz_file_that_asks_for_much_memory_is_one_sentence(tmp_path: Path) -> None:
    """A dictionary of 2 GiB, which 500 kB of zeros fill."""
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w:xz", preset=0) as tar:
        tar.addfile(tarfile.TarInfo("0.jpg"))
    content = bytearray(path.read_bytes())
    end = 12 + 4 * (content[12] + 1)  # of the block's header, which names the filter LZMA2 and its dictionary
    content[content.index(b"\x21\x01", 12, end) + 2] = 38
    content[end - 4 : end] = struct.pack("<I", zlib.crc32(content[12 : end - 4]))
    path.write_bytes(content)
    [found] = iter_images(path)
    assert isinstance(found.image, ImageError) and "needs more than 134,217,728 bytes of memory" in str(found.image)


def test_an_xz_file_of_several_streams_is_read_whole(tmp_path: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for index in range(3):
            member = tarfile.TarInfo(f"{index}.jpg")
            member.size = 30_000
            tar.addfile(member, io.BytesIO(bytes([index]) * member.size))
    whole, path = content.getvalue(), tmp_path / "s.tar"
    path.write_bytes(lzma.compress(whole[:40_000]) + bytes(8) + lzma.compress(whole[40_000:]))
    assert [named.image for named in iter_images(path)] == [bytes([index]) * 30_000 for index in range(3)]


@pytest.fixture(scope="module")
def ordinary(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """KiB that the command takes for one image."""
    path = tmp_path_factory.mktemp("ordinary") / "a.png"
    generated(1).save(path)
    return forked.run("hf_captioner.cli", "caption", path, "--model", checkpoint).memory


def test_images_of_a_compressed_tar_file_are_not_all_held_in_memory(
    checkpoint: Path, tmp_path: Path, ordinary: int
) -> None:
    """30 images of 60 MB in a file of 8 MB."""
    path = tmp_path / "s.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for index in range(30):
            member = tarfile.TarInfo(f"{index}.jpg")
            member.size = 60_000_000
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    done = forked.run("hf_captioner.cli", "caption", path, "--model", checkpoint)
    assert done.returncode == 1 and "30 of 30 images failed" in done.stderr
    assert done.memory < ordinary + 900_000, done.memory - ordinary


def test_a_batch_is_full_by_its_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_BATCH_BYTES", 5)
    images = iter([NamedImage(name, bytes(3)) for name in "abc"])
    assert [len(next_batch(images, 32)) for _ in range(3)] == [2, 1, 0]


def image_table(path: Path, values: list[bytes], **options: object) -> Path:
    """Rows as `datasets` stores them."""
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    column = pyarrow.array([{"bytes": value, "path": None} for value in values], kind)
    pyarrow.parquet.write_table(pyarrow.table({"image": column}), path, **options)
    return path


def test_a_small_table_of_a_huge_cell_is_one_sentence(checkpoint: Path, tmp_path: Path, ordinary: int) -> None:
    path = image_table(tmp_path / "one.parquet", [bytes(300_000_000)], compression="zstd")
    assert path.stat().st_size < 100_000
    done = forked.run("hf_captioner.cli", "caption", path, "--model", checkpoint)
    assert done.returncode == 1 and done.memory < ordinary + MEMORY, done.memory
    assert f"{path}: the table cannot be read any further (a page of its column image.bytes unpacks to" in done.stderr


def test_many_rows_that_share_a_large_cell_are_read_one_at_a_time(
    checkpoint: Path, tmp_path: Path, ordinary: int
) -> None:
    path = image_table(
        tmp_path / "many.parquet", [bytes(60_000_000)] * 40, compression="zstd", dictionary_pagesize_limit=1 << 30
    )
    assert path.stat().st_size < 100_000
    done = forked.run("hf_captioner.cli", "caption", path, "--model", checkpoint)
    assert done.returncode == 1 and "40 of 40 images failed" in done.stderr
    assert done.memory < ordinary + 1_400_000, done.memory - ordinary


def test_a_footer_that_lies_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is that of the page's own header, by which Arrow unpacks it."""
    path = image_table(tmp_path / "t.parquet", [bytes(100_000)], compression="zstd")
    monkeypatch.setattr(parquet, "MAX_PAGE_BYTES", 90_000)
    [found] = iter_images(path)
    assert "unpacks to 100" in str(found.image)


@pytest.mark.parametrize(
    "header",
    [b"\x19\xf7" + b"\xff" * 6 + b"\x01", b"\x19" * 100_000, b"\x18\x7fshort"],
    ids=["numbers without end", "lists in lists", "torn text"],
)
def test_a_page_header_is_bounded_by_its_bytes(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": [b"x" * 9]}), path, use_dictionary=False, compression="none")
    content = path.read_bytes()
    path.write_bytes(b"PAR1" + header + content[4:])  # its only page begins at byte 4
    [found] = iter_images(path)
    assert isinstance(found.image, ImageError) and "cannot be read any further" in str(found.image)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_every_kind_of_page_is_read(tmp_path: Path, version: str, compression: str) -> None:
    values = [encoded(index % 3) for index in range(50)]
    for number, options in enumerate(({}, {"use_dictionary": False}, {"row_group_size": 7, "data_page_size": 100})):
        path = image_table(
            tmp_path / f"{number}.parquet", values, compression=compression, data_page_version=version, **options
        )
        assert [image.image for image in iter_images(path)] == values


def test_a_table_with_any_byte_changed_is_read_or_one_sentence(tmp_path: Path) -> None:
    whole = image_table(tmp_path / "t.parquet", [b"one", b"two"]).read_bytes()
    path = tmp_path / "changed.parquet"
    for position in range(len(whole)):
        for value in (0, 0xFF):
            path.write_bytes(whole[:position] + bytes([value]) + whole[position + 1 :])
            for image in iter_images(path):
                assert isinstance(image.image, bytes | ImageError)


def test_a_table_reads_no_picture_outside_its_folder_unless_asked(checkpoint: Path, tmp_path: Path) -> None:
    private, folder = tmp_path / "private.png", tmp_path / "downloaded"
    folder.mkdir()
    generated(1).save(private)
    generated(2).save(folder / "own.png")
    (folder / "link.png").symlink_to(private)
    named = [str(private), "../private.png", "link.png", "own.png"]
    rows = [{"image": {"bytes": None, "path": path}} for path in named]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"image": pyarrow.array([row["image"] for row in rows], kind)})
    pyarrow.parquet.write_table(table, folder / "t.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(folder / "saved")
    for source, own in ((folder / "t.parquet", folder / "own.png"), (folder / "saved", None)):
        found = [image.image for image in iter_images(source)]
        assert all("is outside the table's folder" in str(image) for image in found[:2])
        assert found[3] == own or own is None
    assert "is outside the table's folder" in str(list(iter_images(folder / "t.parquet"))[2].image)
    opened = [image.image for image in iter_images(folder / "t.parquet", allow_outside_paths=True)]
    assert not any(isinstance(image, ImageError) for image in opened)
    command = ("hf_captioner.cli", "caption", folder / "t.parquet", "--model", checkpoint)
    done = forked.run(*command)
    assert done.returncode == 1 and "--allow-outside-paths reads it" in done.stderr and "3 of 4" in done.stderr
    assert forked.run(*command, "--allow-outside-paths").returncode == 0


def test_a_large_image_in_a_saved_data_set_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_PACKED_BYTES", 1000)
    rows = {"image": [{"bytes": bytes(size), "path": None} for size in (1001, 1000)]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    large, whole = (named.image for named in iter_images(tmp_path / "saved"))
    assert isinstance(large, ImageError) and "the image has 1,001 bytes" in str(large)
    assert whole == bytes(1000)


def test_a_path_that_is_not_utf8_is_one_sentence(tmp_path: Path) -> None:
    column = pyarrow.StructArray.from_arrays(
        [
            pyarrow.array([None, b"x"], pyarrow.binary()),
            pyarrow.StringArray.from_buffers(
                2, pyarrow.py_buffer(struct.pack("<3i", 0, 2, 2)), pyarrow.py_buffer(b"\xff\xfe")
            ),
        ],
        ["bytes", "path"],
    )
    pyarrow.parquet.write_table(pyarrow.table({"image": column}), tmp_path / "t.parquet")
    first, second = iter_images(tmp_path / "t.parquet")
    assert "is not UTF-8" in str(first.image) and second.image == b"x"


def test_in_the_hubs_cache_a_tables_paths_lead_to_the_repositorys_own_blobs(tmp_path: Path) -> None:
    data, blobs = (
        tmp_path / "datasets--me--mine" / "snapshots" / "abc" / "data",
        tmp_path / "datasets--me--mine" / "blobs",
    )
    data.mkdir(parents=True)
    blobs.mkdir()
    generated(1).save(blobs / "123", "PNG")
    generated(2).save(tmp_path / "secret.png")
    (data / "a.png").symlink_to(blobs / "123")
    (data / "b.png").symlink_to(tmp_path / "secret.png")
    rows = [{"image": {"bytes": None, "path": name}} for name in ("a.png", "b.png")]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema({"image": kind})), data / "t.parquet")
    own, other = (named.image for named in iter_images(data / "t.parquet"))
    assert Path(str(own)) == data / "a.png" and "is outside the table's folder" in str(other)
