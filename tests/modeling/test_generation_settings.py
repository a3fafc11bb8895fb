"""One search takes a bounded memory, whatever a checkpoint or a caller asks for."""

import json
import string
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hf_captioner import CaptionerConfig, CheckpointError, ConfigError, GenerationConfig, ImageCaptioner
from hf_captioner.modeling import generation_settings
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.modeling.generation_settings import MAX_SEARCH_BYTES, images_at_once, search_bytes
from hf_captioner.modeling.tokenizer import SPECIAL, CaptionTokenizer

TOO_MUCH = {"num_beams": 100, "max_length": 200, "num_return_sequences": 100, "num_alternatives": 100}
SENTENCE = (
    r"num_beams 100 x max_length 200 x num_alternatives 100 would take about [\d,]+ MiB of memory for an image; "
    r"expected at most 512 MiB: lower one of them\.$"
)


def test_settings_that_together_take_too_much_are_refused_wherever_they_come_from(
    tiny_captioner: ImageCaptioner, image: Image.Image, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=SENTENCE):
        tiny_captioner.caption(image, **TOO_MUCH)
    with pytest.raises(ConfigError, match=SENTENCE):
        tiny_captioner.stream([image], **TOO_MUCH)
    settings = GenerationConfig(**TOO_MUCH)
    with pytest.raises(ConfigError, match=SENTENCE):
        tiny_captioner.caption_features(FeatureMap(tiny_features(tiny_captioner, 1).values, 8, 8), settings)
    tiny_captioner.generation_config = settings
    with pytest.raises(ConfigError, match=SENTENCE):
        tiny_captioner.caption(image)
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "generation_config.json").write_text(json.dumps({"format": 1, **TOO_MUCH}))
    with pytest.raises(CheckpointError, match=SENTENCE):
        ImageCaptioner.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"format": 1, "num_beams": 10_000}))
    with pytest.raises(CheckpointError, match=r"num_beams is 10000; expected 1 to 100\.$"):
        ImageCaptioner.from_pretrained(tmp_path)


def test_more_captions_than_fit_at_once_are_refused_before_an_image_is_read(tiny_captioner: ImageCaptioner) -> None:
    with pytest.raises(ConfigError, match=r"x 100,000 images would take up to [\d,]+ MiB .* or use stream\.$"):
        tiny_captioner.caption(["none.jpg"] * 100_000, num_return_sequences=10)


def tiny_features(captioner: ImageCaptioner, images: int) -> FeatureMap:
    return captioner.encode(torch.randn(images, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


def test_images_that_do_not_fit_together_are_searched_in_parts_with_the_same_captions(
    tiny_captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, settings = tiny_features(tiny_captioner, 5), GenerationConfig(num_return_sequences=3)
    whole = tiny_captioner.caption_features(features, settings)
    each = search_bytes(tiny_captioner.config, settings, 64)
    monkeypatch.setattr(generation_settings, "MAX_SEARCH_BYTES", 2 * each)
    assert images_at_once(tiny_captioner.config, settings, 64) == 2
    searched: list[int] = []
    start = tiny_captioner.decoder.start

    def counted(part: FeatureMap) -> Any:
        searched.append(len(part.values))
        return start(part)

    monkeypatch.setattr(tiny_captioner.decoder, "start", counted)
    parts = tiny_captioner.caption_features(features, settings)
    assert searched == [2, 2, 1]
    assert [[c.text for c in best.candidates] for best in parts] == [
        [c.text for c in best.candidates] for best in whole
    ]


AT_THE_BOUND: list[tuple[str, int, int, dict[str, Any]]] = [
    ("a large vocabulary", 45_000, 1, {"num_beams": 100, "max_length": 2}),
    ("sampling from it", 45_000, 1, {"do_sample": True, "num_return_sequences": 100, "max_length": 2, "top_p": 0.9}),
    ("many alternatives", 300, 1, {**TOO_MUCH, "max_length": 130}),
    ("many images", 3000, 400, {"num_beams": 10, "max_length": 5}),
]
"""Vocabulary, images, settings."""


def peaks() -> None:
    """Print, for each of AT_THE_BOUND, how far the process grew in the search."""
    torch.set_num_threads(1)
    words = ["".join(letters) for letters in product(string.ascii_lowercase, repeat=4)]
    for name, vocabulary, images, settings in AT_THE_BOUND:
        config = CaptionerConfig(vocabulary, "resnet18", "layer2", 64, hidden_size=8, backward_hidden_size=4)
        captioner = ImageCaptioner(config, CaptionTokenizer([*SPECIAL, *words[: vocabulary - 4]]))
        torch.nn.init.constant_(captioner.decoder.output.bias[2:3], -30.0)  # captions of all the words allowed
        features = tiny_features(captioner, images)
        captioner.caption_features(FeatureMap(features.values[:1], 8, 8), GenerationConfig(num_beams=1, max_length=2))
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident
        before = peak()
        captioner.caption_features(features, GenerationConfig(**settings))
        print(json.dumps([name, peak() - before]), flush=True)


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def test_at_the_bound_a_search_takes_what_the_formula_says() -> None:
    program = "from tests.modeling.test_generation_settings import peaks; peaks()"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    measured = dict(json.loads(line) for line in run.stdout.splitlines())
    assert measured.keys() == {name for name, *_ in AT_THE_BOUND}
    for name, vocabulary, _, settings in AT_THE_BOUND:
        config = CaptionerConfig(vocabulary, "resnet18", "layer2", 64, hidden_size=8, backward_hidden_size=4)
        assert search_bytes(config, GenerationConfig(**settings), 64) <= MAX_SEARCH_BYTES
        assert 1 << 24 < measured[name] < 1.05 * MAX_SEARCH_BYTES, (name, measured[name] >> 20)
