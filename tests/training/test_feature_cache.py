"""Cached features are the encoder's own, and never those of something that has changed since."""

import os
from pathlib import Path

import pytest
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.errors import ImageError
from hf_captioner.images import open_image, preprocess
from hf_captioner.training.feature_cache import cached_features
from tests.conftest import generated


def shards(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_cache_holds_what_the_encoder_gives(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path
) -> None:
    encoder, config = tiny_captioner.encoder.eval(), tiny_captioner.config
    features = cached_features(encoder, config, image_paths, tmp_path / "features")
    with torch.inference_mode():
        pixels = torch.stack([preprocess(open_image(path), config) for path in image_paths])
        expected = encoder(pixels).values
    found = torch.stack([features[index] for index in range(len(image_paths))])
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)


def test_a_second_reading_computes_nothing(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path
) -> None:
    encoder, config, folder = tiny_captioner.encoder.eval(), tiny_captioner.config, tmp_path / "features"
    cached_features(encoder, config, image_paths, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    cached_features(encoder, config, image_paths, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("change", ["an image", "the order", "the weights", "the preprocessing"])
def test_a_stale_cache_is_never_used(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path, change: str
) -> None:
    encoder, config, folder = tiny_captioner.encoder.eval(), tiny_captioner.config, tmp_path / "features"
    first = cached_features(encoder, config, image_paths, folder)[0]
    before = shards(folder)
    if change == "an image":
        was = image_paths[0].stat()
        generated(77).save(image_paths[0])
        os.utime(image_paths[0], ns=(was.st_atime_ns, was.st_mtime_ns + 1_000_000))
    elif change == "the order":
        image_paths = image_paths[::-1]
    elif change == "the weights":
        with torch.no_grad():
            next(encoder.parameters()).mul_(1.5)
    else:
        config = type(config).from_dict({**config.to_dict(), "image_mean": [0.1, 0.1, 0.1]})
    second = cached_features(encoder, config, image_paths, folder)[0]
    assert shards(folder) > before
    assert not torch.equal(first, second)


def test_a_bad_image_stops_it_and_leaves_no_half_file(
    tiny_captioner: ImageCaptioner, image_paths: list[Path], tmp_path: Path
) -> None:
    image_paths[2].write_text("no image")
    with pytest.raises(ImageError, match=r"2\.png"):
        cached_features(tiny_captioner.encoder, tiny_captioner.config, image_paths, tmp_path / "features")
    assert not list((tmp_path / "features").glob("*"))
