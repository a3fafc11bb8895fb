"""Images of every format that Pillow writes, broken in two thousand ways, and some made to do harm."""

import io
import os
import socket
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from hf_captioner.images import MAX_FILE_BYTES

COUNT = 2000
SIZE = WIDTH, HEIGHT = 37, 23
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F")
PIXELS = 10_000_000
"""The limit under which they are read."""
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"progressive": True}, {"exif": True}, {"icc_profile": bytes(3000)}],
    "PNG": [{"exif": True}, {"pnginfo": True}, {"icc_profile": bytes(3000)}, {"save_all": True}],
    "TIFF": [
        *({"compression": kind} for kind in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "lzma", "zstd")),
        {"compression": "jpeg", "modes": ("L", "RGB")},  # Pillow does harm to its memory with others
        *({"compression": kind, "modes": ("1",)} for kind in ("group3", "group4")),
        {"exif": True},
        {"save_all": True},
    ],
    "GIF": [{"save_all": True}, {"interlace": False}],
    "WEBP": [{"lossless": True}, {"save_all": True}, {"exif": True}],
    "AVIF": [{"save_all": True}, {"exif": True}],
    "JPEG2000": [{"no_jp2": True}, {"irreversible": True, "tile_size": (16, 16)}],
    "MPO": [{"save_all": True}],
    "TGA": [{"compression": "tga_rle"}],
    "DDS": [{"pixel_format": kind} for kind in ("DXT1", "DXT3", "DXT5", "BC2", "BC3", "BC5")],
    "ICO": [{"bitmap_format": "bmp"}],
}


# -- what is broken ----------------------------------------------------------------------------------------------------


@cache
def well_formed() -> dict[str, bytes]:
    """A small image in every format that Pillow writes here, in every mode and variant that the format takes."""
    Image.init()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    files = {}
    for kind in sorted(Image.SAVE):
        for mode in MODES:
            for index, options in enumerate(({}, *VARIANTS.get(kind, ()))):
                taken = mode in options.get("modes", MODES)
                if taken and (content := saved(in_mode(image, mode), kind, options)):
                    files[f"{kind}-{mode.replace(';', '')}-{index}"] = content
    return files


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes | None:
    """The file, or None where the format does not take this image."""
    options = {name: value for name, value in options.items() if name != "modes"}
    if "exif" in options:
        options["exif"] = Image.Exif()
        options["exif"].update({0x0112: 6, 0x010E: "a description", 0x8769: {0x9003: "2024:01:01 00:00:00"}})
    if "pnginfo" in options:
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("comment", "words " * 50, zip=True)
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", 'tiff:Orientation="6"')
    if "save_all" in options:
        options["append_images"] = [image.transpose(Image.Transpose.ROTATE_180)]
    file = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.save(file, kind, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, struct.error):
        return None
    return file.getvalue()


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: rng.integers(1, len(data))])


def beheaded(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: rng.integers(1, 64)])


def one_byte(data: bytearray, rng: np.random.Generator) -> bytes:
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def many_bytes(data: bytearray, rng: np.random.Generator) -> bytes:
    for place in rng.integers(8, max(len(data), 9), max(len(data) // 30, 3)):
        data[min(place, len(data) - 1)] = rng.integers(256)
    return bytes(data)


def header(data: bytearray, rng: np.random.Generator) -> bytes:
    for place in rng.integers(4, 200, 4):
        data[place % len(data)] = rng.choice([0, 1, 127, 128, 255])
    return bytes(data)


def number(data: bytearray, rng: np.random.Generator) -> bytes:
    """Four bytes somewhere become a number at the edge of what fits."""
    place = int(rng.integers(4, max(len(data) - 4, 5)))
    value = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
    data[place : place + 4] = struct.pack(rng.choice(["<I", ">I"]), value)
    return bytes(data)


def other_size(data: bytearray, rng: np.random.Generator) -> bytes:
    width, height = (int(rng.choice([0, 1, 36, 38, 255, 3000, 32767, 60000, 65535])) for _ in SIZE)
    return sized(bytes(data), width, height)


def emptied(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    stop = start + int(rng.integers(1, 100))
    data[start:stop] = bytes(len(data[start:stop]))
    return bytes(data)


def repeated(data: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return bytes(data[: start + 50] + data[start:])


def followed(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data) + rng.bytes(100)


MUTATIONS: list[Callable[[bytearray, np.random.Generator], bytes]] = [
    other_size, cut, header, many_bytes, number, one_byte, emptied, repeated, beheaded, followed
]  # fmt: skip


BIG_ENDIAN = (b"\x89PNG", b"\xff\xd8", b"\xff\x4f", b"\0\0\0", b"qoif", b"\x01\xda", b"icns")
"""How the files of formats begin that write a number's first byte first."""


def sized(data: bytes, width: int, height: int) -> bytes:
    """The file with these in place of its own width and height, wherever its header has them."""
    order = ">" if data.startswith(BIG_ENDIAN) else "<"
    for old, new in ((SIZE, (width, height)), (SIZE[::-1], (height, width))):
        for layout in ("HH", "II"):
            data = data.replace(struct.pack(order + layout, *old), struct.pack(order + layout, *new))
    data = data.replace(b"%d %d" % SIZE, b"%d %d" % (width, height)).replace(
        b"%d*%d" % SIZE, b"%d*%d" % (width, height)
    )
    for tag, old, new in ((256, WIDTH, width), (257, HEIGHT, height)):  # a TIFF has each by itself
        for kind in (3, 4):
            data = data.replace(struct.pack("<HHII", tag, kind, 1, old), struct.pack("<HHII", tag, kind, 1, new))
    return with_checksums(data)


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that they should have, for else nothing after the first is looked at."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    chunks, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if place + 12 + length > len(data):
            break
        body = data[place + 4 : place + 8 + length]
        chunks += [data[place : place + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        place += 12 + length
    return b"".join((*chunks, data[place:]))


def mutated() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(0)
    files = list(well_formed().items())
    for index in range(COUNT):
        name, content = files[index % len(files)]
        mutate = MUTATIONS[(index // len(files) + index) % len(MUTATIONS)]
        broken = mutate(bytearray(content), rng)
        if rng.integers(2):
            broken = with_checksums(broken)
        yield f"{index:04}-{name}-{mutate.__name__}", broken


# -- what is made to do harm -------------------------------------------------------------------------------------------


def bombs() -> Iterator[tuple[str, bytes]]:
    """Small files whose headers promise much, each with a name that says what its error should speak of."""
    for name, content in well_formed().items():
        kind, mode, _ = name.split("-")
        if mode in ("L", "RGB") and kind in (
            "PNG",
            "BMP",
            "DIB",
            "GIF",
            "TIFF",
            "PPM",
            "TGA",
            "SGI",
            "QOI",
            "IM",
            "DDS",
            "JPEG",
            "JPEG2000",
        ):
            yield f"pixels-{name}", sized(content, 60_000, 60_000)
            if mode == "L":
                yield f"pixels-twice-{name}", sized(content, 10_000, 1_500)  # of such Pillow itself only warns
    image = Image.new("RGB", SIZE)
    if features.check("webp"):
        extended = struct.pack("<4sI4s4sI", b"RIFF", 1000, b"WEBP", b"VP8X", 10) + bytes(4) + b"\xff\x3f\0" * 2
        yield "any-webp", extended + (saved(image, "WEBP", {}) or b"")[12:]
    yield "tags", tiff_of_one_thing(300_000, 5000)
    # With JFIF's density, EXIF would not be looked at for one.
    plain, tables = (saved(image, "JPEG", {}) or b"").replace(b"JFIF", b"JFIX"), b"\xff\xdb"
    directory = segment(b"\xff\xe1", b"Exif\0\0" + tiff_of_one_thing(2000, 4000))
    yield "opened-exif", plain.replace(tables, directory + tables, 1)
    parts = in_parts(tiff_of_one_thing(300_000, 5000))
    directory = b"".join(segment(b"\xff\xe1", b"Exif\0\0" + part) for part in parts)
    yield "opened-exif-parts", plain.replace(tables, directory + tables, 1)
    profile = "\nexif\n  360000\n" + (b"Exif\0\0" + tiff_of_one_thing(300_000, 5000)).hex()
    yield "opened-profile-png", png(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile.encode())))
    yield "opened-exif-png", png(chunk(b"eXIf", tiff_of_one_thing(300_000, 5000)))
    yield "any-text-png", png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9)))
    yield "any-texts-png", png(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 100)
    yield "any-profile-png", png(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(50_000_000), 9)))
    yield "decoded-zlib-png", png(b"", zlib.compress(bytes(50_000_000), 9)[:-8])
    yield "format-eps", saved(image, "EPS", {}) or b""
    yield "format-text", b"not an image\n" * 20
    yield "format-zip", b"PK\3\4" + bytes(1000)
    yield "empty", b""


def tiff_of_one_thing(length: int, count: int) -> bytes:
    """An image of 8 x 8 in a TIFF, with very many tags that all hold the same bytes."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    tags += [(278, 4, 1, 8), (279, 4, 1, 64), *((1000 + index, 7, length, 8) for index in range(count))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + length) + bytes(length) + directory


def in_parts(content: bytes) -> list[bytes]:
    return [content[start : start + 60_000] for start in range(0, len(content), 60_000)]


def segment(marker: bytes, content: bytes) -> bytes:
    return marker + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(between: bytes, pixels: bytes | None = None) -> bytes:
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 0))
    pixels = zlib.compress(bytes((WIDTH + 1) * HEIGHT)) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + start + between + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def write_what_is_no_file(folder: Path) -> None:
    (folder / "folder.jpg").mkdir()
    (folder / "link-to-itself.jpg").symlink_to("link-to-itself.jpg")
    (folder / "link-to-nothing.jpg").symlink_to("nothing")
    (folder / "device.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.jpg"))  # a socket's name has at most about 100 letters
    with (folder / "large.jpg").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    (folder / "forbidden.jpg").write_bytes(saved(Image.new("L", SIZE), "JPEG", {}) or b"")
    (folder / "forbidden.jpg").chmod(0)
