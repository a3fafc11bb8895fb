"""Whatever Pillow opens becomes an upright RGB image; whatever it does not is one clear sentence."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from hf_captioner import CaptionerConfig, ImageError
from hf_captioner.images import ImageSource, normalised, occlude, open_image, preprocess, read_pixels

RED, BLUE = (255, 0, 0), (0, 0, 255)


def red_above_blue(mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", (40, 60), BLUE)
    image.paste(RED, (0, 0, 40, 30))
    return image.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def close(found: tuple[int, ...] | float | None, wanted: tuple[int, ...]) -> bool:
    assert isinstance(found, tuple)
    return max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 30


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "TGA", "ICO"])
def test_common_formats(kind: str) -> None:
    opened = open_image(encoded(red_above_blue(), kind))
    assert opened.mode == "RGB"
    assert close(opened.getpixel((opened.width // 2, 4)), RED)
    assert close(opened.getpixel((opened.width // 2, opened.height - 4)), BLUE)


@pytest.mark.parametrize(("mode", "kind"), [("P", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("CMYK", "TIFF")])
def test_colour_modes(mode: str, kind: str) -> None:
    opened = open_image(encoded(red_above_blue(mode), kind))
    assert (opened.mode, opened.size) == ("RGB", (40, 60))
    assert close(opened.getpixel((20, 4)), RED)


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_modes(mode: str) -> None:
    image = Image.new("L", (8, 8), 0)
    image.paste(255, (0, 0, 8, 4))
    opened = open_image(encoded(image.convert(mode), "PNG"))
    assert opened.getpixel((4, 0)) == (255, 255, 255)
    assert opened.getpixel((4, 7)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    opened = np.asarray(open_image(encoded(Image.fromarray(values), kind)))[:, :, 0]
    assert abs(opened.astype(int).flatten() - np.arange(256)).max() <= 1


def test_transparent_parts_are_white() -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((255, 0, 0, 128), (0, 0, 8, 4))
    opened = open_image(encoded(image, "PNG"))
    assert opened.getpixel((4, 7)) == (255, 255, 255)
    assert close(opened.getpixel((4, 0)), (255, 127, 127))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert open_image(encoded(palette, "PNG", transparency=0)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    opened = open_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert close(opened.getpixel((8, 8)), RED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = red_above_blue()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(encoded(stored, "JPEG", exif=exif, quality=95))
    assert opened.size == (40, 60)
    assert close(opened.getpixel((20, 4)), RED)


def test_every_kind_of_source_is_the_same_image(tmp_path: Path) -> None:
    image = red_above_blue()
    image.save(tmp_path / "p.png")
    sources = [tmp_path / "p.png", str(tmp_path / "p.png"), (tmp_path / "p.png").read_bytes(), np.asarray(image)]
    for source in (*sources, image):
        assert np.array_equal(np.asarray(open_image(source)), np.asarray(image))
    assert open_image(np.zeros((4, 5), dtype=np.uint8)).size == (5, 4)


def test_what_is_no_image_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "link.png")
    whole = encoded(red_above_blue().resize((400, 600)), "JPEG")
    (tmp_path / "short.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.png").write_bytes(encoded(red_above_blue(), "PNG")[:20])
    (tmp_path / "cut.jpg").write_bytes(whole[:30])
    (tmp_path / "cut.webp").write_bytes(encoded(red_above_blue(), "WEBP")[:25])
    (tmp_path / "cut.ppm").write_bytes(b"P6\n10 x\n255\n")
    for name, reason in {
        "cut.png": "cannot be decoded|no image",
        "cut.jpg": "cannot be decoded|no image",
        "cut.webp": "cannot be decoded|no image",
        "cut.ppm": "cannot be decoded|no image",
        "notes.jpg": "no image in a format",
        "empty.png": "file is empty",
        "short.jpg": "cannot be decoded",
        "gone.jpg": "No such file",
        "link.png": "symbolic links",
        ".": "a folder",
        "a\0b.png": "null byte",
    }.items():
        with pytest.raises(ImageError, match=reason) as caught:
            open_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(ImageError, match="the bytes given"):
        open_image(b"hello")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((6, 5, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros((8, 8, 3), np.int64),
        np.zeros((8, 8), bool),
        torch.zeros(2, 3, 8, 8),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(ImageError, match=r"expected \(H, W\), \(H, W, C\) or \(C, H, W\) with C = 1, 3 or 4, of uint8"):
        open_image(array)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 255.0), (-2.1, 2.6), (0.0, float("nan")), (0.0, float("inf")), (-0.01, 1.0), (0.0, 1.01)]
)
def test_floats_that_are_not_from_0_to_1_are_refused_with_what_was_found(low: float, high: float) -> None:
    array = np.full((8, 8, 3), low)
    array[0, 0, 0] = high
    for found in (array, torch.from_numpy(array).to(torch.bfloat16)):
        with pytest.raises(ImageError, match=r"has floats from .* to .*; expected 0 to 1: divide by 255"):
            open_image(found)


def test_an_array_is_read_in_every_layout_and_type_that_libraries_give() -> None:
    image = red_above_blue()
    values = np.asarray(image)
    clear = np.dstack([values, np.full(values.shape[:2], 255, np.uint8)])
    tensor = torch.from_numpy(values.copy())
    same: list[ImageSource] = [
        values.transpose(2, 0, 1),
        values / 255,
        (values / 255).astype(np.float16).transpose(2, 0, 1),
        values[:, ::-1][:, ::-1],
        clear,
        clear.transpose(2, 0, 1) / np.float32(255),
        tensor,
        tensor.permute(2, 0, 1),
        (tensor.permute(2, 0, 1) / 255).requires_grad_(),
        (tensor / 255).to(torch.bfloat16),
        bytearray(encoded(image, "PNG")),
        memoryview(encoded(image, "PNG")),
    ]
    for source in same:
        assert np.array_equal(np.asarray(open_image(source)), values)
    clear[:, :, 3] = 0
    assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)
    for grey in (np.full((6, 9, 1), 70, np.uint8), np.full((1, 6, 9), 70, np.uint8), torch.full((6, 9), 70 / 255)):
        assert (open_image(grey).size, open_image(grey).getpixel((0, 0))) == ((9, 6), (70, 70, 70))
    assert open_image(np.full((4, 4), 1 + 1e-6)).getpixel((0, 0)) == (255, 255, 255)  # what arithmetic does to a 1


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ((1, 1), r"has only 1 x 1 pixels; expected at least 16 on each side"),
        ((15, 300), r"has only 15 x 300 pixels; expected at least 16"),
        (
            (20 * 40 + 1, 40),
            r"has 801 x 40 pixels, which is too elongated; expected at most 20 times as many on one side",
        ),
        ((16, 16), None),
        ((40, 20 * 40), None),
    ],
)
def test_what_is_too_small_or_too_elongated_for_the_model_is_refused_in_every_form(
    tmp_path: Path, size: tuple[int, int], sentence: str | None
) -> None:
    config, image = CaptionerConfig(10, image_size=32), Image.new("RGB", size, RED)
    image.save(tmp_path / "p.jpg")
    for source in (tmp_path / "p.jpg", encoded(image, "PNG"), image, np.asarray(image), encoded(image, "JPEG")):
        if sentence is None:
            assert read_pixels(source, config).shape == (3, 32, 32)
        else:
            with pytest.raises(ImageError, match=sentence):
                read_pixels(source, config)


def test_other_types_are_refused() -> None:
    with pytest.raises(ImageError, match="cannot be a int"):
        open_image(3)  # type: ignore[arg-type]


def test_a_decompression_bomb_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(ImageError, match="400000000 pixels"):
        open_image(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300_000_000)  # now Pillow itself only warns
    monkeypatch.setattr(Image, "_decompression_bomb_check", lambda size: None)
    with pytest.raises(ImageError, match="At most 300000000 pixels"):
        open_image(bomb)


def test_a_slow_format_has_a_limit_of_its_own() -> None:
    large = encoded(Image.new("L", (4000, 2600)), "JPEG2000")
    with pytest.raises(ImageError, match=r"10400000 pixels\. At most 10000000 pixels are read"):
        open_image(large)


def test_preprocess_resizes_the_whole_image_and_normalises() -> None:
    config = CaptionerConfig(10, image_size=32)
    pixels = preprocess(red_above_blue(), config)
    assert pixels.shape == (3, 32, 32)
    red = (torch.tensor([1.0, 0, 0]) - torch.tensor(config.image_mean)) / torch.tensor(config.image_std)
    blue = (torch.tensor([0, 0, 1.0]) - torch.tensor(config.image_mean)) / torch.tensor(config.image_std)
    torch.testing.assert_close(pixels[:, 0, 31], red)
    torch.testing.assert_close(pixels[:, 31, 0], blue)


def test_images_normalised_together_are_to_the_bit_what_each_is_alone() -> None:
    config = CaptionerConfig(10, image_size=48)
    images = [textured(48, 48), textured(90, 60), Image.new("RGB", (48, 48), RED)]
    levels = torch.stack([torch.from_numpy(np.array(image.resize((48, 48), 2))) for image in images])
    together = normalised(levels, config)
    assert torch.equal(together, torch.stack([preprocess(image, config) for image in images]))
    assert together.is_contiguous(memory_format=torch.channels_last)


def textured(width: int, height: int) -> Image.Image:
    """Smooth colours, edges, and a texture of details of 1 to 8 pixels."""
    down, right = np.mgrid[:height, :width].astype(np.float32)
    rng = np.random.default_rng(0)
    values = np.stack([128 + 60 * np.sin(right / 400 + i) * np.cos(down / 300) for i in range(3)], axis=2)
    values += 40 * ((right // 160 + down // 120) % 2)[:, :, None]
    for detail in (1, 8):
        noise = rng.normal(0, 12, (height // detail + 1, width // detail + 1, 3)).astype(np.float32)
        values += noise.repeat(detail, 0).repeat(detail, 1)[:height, :width]
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def test_pixels_from_a_reduced_jpeg_are_nearly_the_same() -> None:
    config = CaptionerConfig(10, image_size=224)
    image = encoded(textured(3000, 2000), "JPEG", quality=92)
    assert open_image(image, min_side=2 * config.image_size).size == (750, 500)
    difference = read_pixels(image, config) - preprocess(open_image(image), config)
    levels = 255 * difference.abs() * torch.tensor(config.image_std)[:, None, None]
    assert 0 < levels.mean() < 0.5
    assert levels.max() < 8


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_reduced_jpeg_is_upright_and_large_enough(kind: str, mode: str, options: dict[str, bool]) -> None:
    image = Image.new("RGB", (601, 401), RED)
    image.paste((255, 255, 255), (0, 0, 601, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # its upper edge becomes the right one
    file = encoded(image.convert(mode), kind, quality=95, exif=exif, **options)
    for min_side, size in {1: (51, 76), 50: (51, 76), 51: (101, 151), 200: (201, 301), 201: (401, 601)}.items():
        opened = open_image(file, min_side=min_side)
        assert (opened.mode, opened.size) == ("RGB", size)
        assert close(opened.getpixel((size[0] - 4, 9)), (255, 255, 255))
        assert not close(opened.getpixel((4, 9)), (255, 255, 255))
    assert open_image(encoded(image, "PNG"), min_side=50).size == (601, 401)
    with pytest.raises(ValueError, match="min_side is 0; expected at least 1"):
        open_image(file, min_side=0)


def test_a_pillow_image_whose_file_is_broken_is_an_image_error(tmp_path: Path) -> None:
    whole = encoded(red_above_blue().resize((400, 600)), "JPEG")
    with pytest.raises(ImageError, match="the Pillow image: the image cannot be decoded"):
        open_image(Image.open(io.BytesIO(whole[: len(whole) // 2])))


def test_a_given_image_is_neither_changed_nor_shared() -> None:
    image = red_above_blue()
    opened = open_image(image)
    opened.putpixel((0, 0), BLUE)
    assert image.getpixel((0, 0)) == RED


def test_a_image_with_broken_exif_is_opened_and_nothing_is_warned_of() -> None:
    image = encoded(red_above_blue(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0" + bytes(range(20)))
    before = list(warnings.filters)
    assert open_image(image).size == (40, 60)
    assert open_image(encoded(red_above_blue(), "PNG", exif=b"Exif\0\0nonsense")).size == (40, 60)
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="Truncated|Corrupt|corrupt"):
        Image.open(io.BytesIO(image)).getexif()


def test_a_format_that_a_plugin_registers_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(ImageFile.ImageFile):
        def _open(self) -> None:
            self._mode, self._size = "L", (2, 2)
            self.tile = [ImageFile._Tile("raw", (0, 0, 2, 2), 5, "L")]

    monkeypatch.setattr(Image, "ID", [*Image.ID, "PLAIN"])
    monkeypatch.setitem(Image.OPEN, "PLAIN", (Plain, lambda prefix: prefix.startswith(b"PLAIN")))
    assert open_image(b"PLAIN\1\2\3\4").getpixel((1, 1)) == (4, 4, 4)


def test_covered_cells_have_the_images_mean_colour_and_the_others_stay() -> None:
    pixels = torch.randn(3, 8, 8)
    cells = torch.tensor([[[True, False], [False, False]], [[False, False], [False, False]]])
    first, second = occlude(pixels, cells)
    torch.testing.assert_close(first[:, :4, :4], pixels.mean((1, 2))[:, None, None].expand(3, 4, 4))
    assert torch.equal(first[:, 4:], pixels[:, 4:]) and torch.equal(first[:, :, 4:], pixels[:, :, 4:])
    assert torch.equal(second, pixels)
