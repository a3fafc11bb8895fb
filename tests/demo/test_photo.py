"""A visitor's photo: what the page shows of it, and that the model reads the same of it as in Python."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_captioner import CaptionerConfig, ImageError
from hf_captioner.demo.photo import pixels_of, read_photo, thumbnail
from hf_captioner.images import read_pixels
from tests.conftest import generated
from tests.demo.asking import file_of, image_in

LYING = Image.Exif()
LYING[0x0112] = 6

FILES = {
    "a JPEG": file_of(generated(1), "JPEG"),
    "a large JPEG": file_of(generated(2, (3000, 2000)), "JPEG"),
    "a JPEG that lies on its side": file_of(generated(3, (900, 600)), "JPEG", exif=LYING),
    "a PNG with transparent parts": file_of(generated(4).convert("RGBA").rotate(30, expand=True)),
    "grey": file_of(generated(5).convert("L")),
    "of the model's own size": file_of(generated(6, (64, 64))),
    "tall": file_of(generated(7, (40, 700)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_what_the_page_sends_along_is_what_the_model_reads_in_python(
    content: bytes, tiny_config: CaptionerConfig
) -> None:
    photo = read_photo(content, tiny_config)
    assert photo.model_input.size == (tiny_config.image_size, tiny_config.image_size)
    pixels = pixels_of(photo.to_dict()["input"], tiny_config)
    assert torch.equal(pixels, read_pixels(content, tiny_config))


@pytest.mark.parametrize(
    ("size", "shown"),
    [((4000, 3000), (1280, 960)), ((600, 1400), (549, 1280)), ((1280, 1280), (1280, 1280)), ((96, 64), (96, 64))],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_large_photo_is_shown_small_and_none_larger_than_it_is(
    size: tuple[int, int], shown: tuple[int, int], kind: str, tiny_config: CaptionerConfig
) -> None:
    plain = read_photo(file_of(generated(1, size), kind), tiny_config).to_dict()
    picture = image_in(plain["image"])
    assert picture.format == "JPEG" and plain["image"].startswith("data:image/jpeg;base64,")
    assert np.abs(np.subtract(picture.size, shown)).max() <= 1 and max(picture.size) <= 1280


def test_a_photo_is_shown_as_a_person_sees_it(tiny_config: CaptionerConfig) -> None:
    photo = read_photo(FILES["a JPEG that lies on its side"], tiny_config)
    assert photo.shown.size == (600, 900)
    clear = read_photo(file_of(Image.new("RGBA", (64, 64))), tiny_config)
    assert clear.shown.getpixel((5, 5)) == (255, 255, 255) and clear.to_dict()["colour"] == [255, 255, 255]


def test_the_colour_of_what_is_covered_is_the_photos_mean_one(tiny_config: CaptionerConfig) -> None:
    assert read_photo(file_of(Image.new("RGB", (90, 50), "red")), tiny_config).to_dict()["colour"] == [255, 0, 0]
    half = Image.new("RGB", (100, 100), "black")
    half.paste("white", (0, 0, 50, 100))
    assert read_photo(file_of(half), tiny_config).to_dict()["colour"] == pytest.approx([127.5] * 3, abs=2)


def test_a_photo_that_cannot_be_captioned_is_refused(tiny_config: CaptionerConfig) -> None:
    for content, said in (
        (b"", "the file is empty"),
        (b"no image", "no image in a format"),
        (FILES["a large JPEG"][:2000], "cannot be decoded"),
        (file_of(Image.new("RGB", (1, 1))), "only 1 x 1 pixels"),
        (file_of(Image.new("RGB", (1000, 20))), "too elongated"),
    ):
        with pytest.raises(ImageError, match=said):
            read_photo(content, tiny_config)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (encoded(FILES["a JPEG"]), "96 x 64 pixels, but this page's model reads 64 x 64"),
        ("%%%", "not base64"),
        ("abc", "not base64"),
        ("é", "not base64"),
        ("\ud800", "not base64"),
        ("\0", "not base64"),
        ("", "empty"),
        (encoded(b"no image"), "no image"),
        (encoded(FILES["of the model's own size"][:90]), "cannot be decoded"),
    ],
)
def test_what_is_no_photo_of_the_pages_is_one_clear_sentence(
    sent: str, said: str, tiny_config: CaptionerConfig
) -> None:
    with pytest.raises(ImageError, match=said) as error:
        pixels_of(sent, tiny_config)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_a_photo_in_a_list_is_small(image_path: Path) -> None:
    assert image_in(thumbnail(file_of(generated(1, (4000, 1000)), "JPEG"))).size == (192, 48)
    assert image_in(thumbnail(image_path)).size == (96, 64)
    with pytest.raises(ImageError):
        thumbnail(b"no image")
