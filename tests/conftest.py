"""A tiny captioner and generated images; in CI a skipped test is a failure."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from hf_captioner import CaptionerConfig, ImageCaptioner
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from tests import installing

SENTENCES = [
    "A brown dog runs through the grass .",
    "A black dog jumps over a white fence .",
    "Two children play on the beach .",
    "A man in a red shirt climbs a rock wall .",
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome, report.longrepr = "failed", f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True, scope="session")
def no_measurements_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a page of this user has measured decides how `auto` computes; not in tests, nor in what they start."""
    with pytest.MonkeyPatch.context() as patch:
        use_assets(patch, tmp_path_factory.mktemp("assets"))
        yield


@pytest.fixture(autouse=True)
def no_measurements_of_other_tests(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this test's exports and measurements are kept."""
    return use_assets(monkeypatch, tmp_path_factory.mktemp("assets"))


def use_assets(patch: pytest.MonkeyPatch, folder: Path) -> Path:
    patch.setenv("HF_ASSETS_CACHE", str(folder))  # for new processes
    patch.setattr(constants, "HF_ASSETS_CACHE", str(folder))
    return folder / "hf-captioner" / "onnx"


@pytest.fixture(scope="session")
def tiny_tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.build(SENTENCES, min_count=1)


@pytest.fixture(scope="session")
def tiny_config(tiny_tokenizer: CaptionTokenizer) -> CaptionerConfig:
    return CaptionerConfig(
        vocabulary_size=len(tiny_tokenizer),
        encoder="resnet18",
        encoder_layer="layer2",
        image_size=64,
        hidden_size=16,
        backward_hidden_size=8,
        dropout=0.1,
    )


@pytest.fixture
def tiny_captioner(tiny_config: CaptionerConfig, tiny_tokenizer: CaptionTokenizer) -> ImageCaptioner:
    """Random weights, stronger than at the start of training, so that images get different captions."""
    torch.manual_seed(0)
    captioner = ImageCaptioner(tiny_config, tiny_tokenizer)
    with torch.no_grad():
        for parameter in captioner.decoder.parameters():
            parameter.mul_(4)
    return captioner


@pytest.fixture(scope="session")
def checkpoint(
    tiny_config: CaptionerConfig, tiny_tokenizer: CaptionTokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny checkpoint's folder; do not write into it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    ImageCaptioner(tiny_config, tiny_tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def saved_captioner(checkpoint: Path) -> ImageCaptioner:
    """What the checkpoint holds."""
    return ImageCaptioner.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    installing.build(folder, Path(__file__).resolve().parent.parent)
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    return next(built.glob("*.tar.gz"))


def generated(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """An image of coloured blocks, different for each seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def write_table(folder: Path, splits: Sequence[str], *, kinds: int = 1000, each: int = 1) -> Path:
    """A captions.csv with a generated image in each of these splits, of `kinds` different ones, each captioned
    `each` times by the sentence of its kind."""
    rows = ["path,caption,split"]
    for index, split in enumerate(splits):
        generated(index % kinds).save(folder / f"{index}.png")
        rows += [f"{index}.png,{SENTENCES[index % len(SENTENCES)]},{split}"] * each
    table = folder / "captions.csv"
    table.write_text("\n".join(rows))
    return table


@pytest.fixture(scope="session")
def image() -> Image.Image:
    return generated(0)


@pytest.fixture
def image_path(image: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    image.save(path, quality=95)
    return path


@pytest.fixture
def image_paths(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        generated(index).save(path)
    return paths


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Accelerate takes the settings of one training for the whole process."""
    state = pytest.importorskip("accelerate.state", reason="needs the extra train")
    state.AcceleratorState._reset_state(reset_partial_state=True)
    yield
    state.AcceleratorState._reset_state(reset_partial_state=True)
