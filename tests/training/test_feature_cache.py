"""Cached grids are the encoder's own, and never those of something that has changed since."""

import os
from pathlib import Path

import pytest
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.errors import ImageError
from hf_captioner.images import open_image, preprocess
from hf_captioner.training.feature_cache import cached_grids
from tests.conftest import generated


def shards(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_cache_holds_what_the_encoder_gives(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path
) -> None:
    encoder, config = tiny_captioner.encoder.eval(), tiny_captioner.config
    grids = cached_grids(encoder, config, photograph_paths, tmp_path / "grids")
    with torch.inference_mode():
        pixels = torch.stack([preprocess(open_image(path), config) for path in photograph_paths])
        expected = encoder(pixels).values
    found = torch.stack([grids[index] for index in range(len(photograph_paths))])
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=1e-2, rtol=1e-2)


def test_a_second_reading_computes_nothing(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path
) -> None:
    encoder, config, folder = tiny_captioner.encoder.eval(), tiny_captioner.config, tmp_path / "grids"
    cached_grids(encoder, config, photograph_paths, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    cached_grids(encoder, config, photograph_paths, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("change", ["a photograph", "the order", "the weights", "the preprocessing"])
def test_a_stale_cache_is_never_used(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path, change: str
) -> None:
    encoder, config, folder = tiny_captioner.encoder.eval(), tiny_captioner.config, tmp_path / "grids"
    first = cached_grids(encoder, config, photograph_paths, folder)[0]
    before = shards(folder)
    if change == "a photograph":
        was = photograph_paths[0].stat()
        generated(77).save(photograph_paths[0])
        os.utime(photograph_paths[0], ns=(was.st_atime_ns, was.st_mtime_ns + 1_000_000))
    elif change == "the order":
        photograph_paths = photograph_paths[::-1]
    elif change == "the weights":
        with torch.no_grad():
            next(encoder.parameters()).mul_(1.5)
    else:
        config = type(config).from_dict({**config.to_dict(), "image_mean": [0.1, 0.1, 0.1]})
    second = cached_grids(encoder, config, photograph_paths, folder)[0]
    assert shards(folder) > before
    assert not torch.equal(first, second)


def test_a_bad_photograph_stops_it_and_leaves_no_half_file(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path
) -> None:
    photograph_paths[2].write_text("no picture")
    with pytest.raises(ImageError, match=r"2\.png"):
        cached_grids(tiny_captioner.encoder, tiny_captioner.config, photograph_paths, tmp_path / "grids")
    assert shards(tmp_path / "grids") == set()
