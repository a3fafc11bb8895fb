"""A captioner answers in the form it was asked in, and is the same captioner after it was saved and loaded."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from hf_captioner import Caption, CheckpointError, ConfigError, ImageCaptioner, ImageError


def same(one: Caption, other: Caption) -> bool:
    return one.text == other.text and all(
        np.allclose(a.attention, b.attention, atol=1e-4) and abs(a.probability - b.probability) < 1e-3
        for a, b in zip(one.words, other.words, strict=True)
    )


def test_one_photograph_gives_one_caption(tiny_captioner: ImageCaptioner, photograph_path: Path) -> None:
    caption = tiny_captioner.caption(photograph_path)
    assert isinstance(caption, Caption)
    assert caption.text == " ".join(word.text for word in caption.words) == str(caption)
    assert caption.confidence is None
    for word in caption.words:
        assert word.attention.shape == (8, 8)
        assert word.attention.sum() == pytest.approx(1, abs=1e-4)
        assert 0 < word.probability <= 1
        assert len(word.alternatives) == 5
    assert json.loads(json.dumps(caption.to_dict(attention=True)))["caption"] == caption.text
    assert caption.overlay(photograph_path, word=0).size == (96, 64)
    assert caption.contact_sheet(photograph_path).width > 96
    with pytest.raises(IndexError, match=f"word is 99, but the caption has {len(caption.words)} words"):
        caption.overlay(photograph_path, word=99)


def test_the_answer_has_the_form_of_the_question(tiny_captioner: ImageCaptioner, photograph_path: Path) -> None:
    as_bytes, picture = photograph_path.read_bytes(), Image.open(photograph_path)
    forms = [photograph_path, str(photograph_path), as_bytes, picture, np.asarray(picture)]
    listed = tiny_captioner.caption(forms)
    assert isinstance(listed, list)
    assert all(same(caption, listed[0]) for caption in listed)
    assert tiny_captioner.caption([]) == []
    three = tiny_captioner.caption(photograph_path, num_captions=3)
    assert len({caption.text for caption in three}) == 3
    assert [c.score for c in three] == sorted((c.score for c in three), reverse=True)
    five = tiny_captioner.caption([photograph_path], num_captions=5)
    assert [len(captions) for captions in five] == [5]


def test_a_caption_does_not_depend_on_its_batch(tiny_captioner: ImageCaptioner, photograph_paths: list[Path]) -> None:
    alone = [tiny_captioner.caption(path) for path in photograph_paths]
    assert len({caption.text for caption in alone}) > 1
    for size in (1, 2, 5):
        together = tiny_captioner.caption(photograph_paths, batch_size=size)
        assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_search_settings_steer(tiny_captioner: ImageCaptioner, photograph_path: Path) -> None:
    plain = tiny_captioner.caption(photograph_path)
    begun = tiny_captioner.caption(photograph_path, begin_with="Two dog")
    assert begun.text.startswith("two dog")
    avoided = tiny_captioner.caption(photograph_path, avoid=[plain.words[0].text, "unheardof"])
    assert plain.words[0].text not in avoided.text.split()
    assert len(tiny_captioner.caption(photograph_path, max_length=2).words) <= 2
    with pytest.raises(ConfigError, match="begin_with has 'zebra', not among the model's words"):
        tiny_captioner.caption(photograph_path, begin_with="a zebra")
    with pytest.raises(TypeError, match="does not know beam_width; a search has the fields beams, "):
        tiny_captioner.caption(photograph_path, beam_width=3)


def test_a_stream_is_lazy_ordered_and_goes_on_past_a_bad_picture(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            for path in [photograph_paths[0], bad, photograph_paths[1]]:
                taken += 1
                yield path

    stream = tiny_captioner.stream(endless(), batch_size=2)
    results = [next(stream) for _ in range(6)]
    assert taken <= 6 + 2 * 2
    expected = tiny_captioner.caption(photograph_paths[:2])
    for first, error, second in (results[:3], results[3:]):
        assert isinstance(error, ImageError)
        assert "bad.jpg" in str(error)
        assert isinstance(first, Caption)
        assert isinstance(second, Caption)
        assert same(first, expected[0])
        assert same(second, expected[1])
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        tiny_captioner.caption([photograph_paths[0], bad])


def test_saved_and_loaded_it_is_the_same_captioner(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path
) -> None:
    tiny_captioner.weights_license = "Be kind."
    folder = tmp_path / "saved"
    tiny_captioner.save_pretrained(folder)
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "tokenizer.json", "model.safetensors", "README.md", "LICENSE"}
    weights = load_file(folder / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float16"}
    assert "decoder.output.weight" not in weights  # tied to the embeddings, stored once
    loaded = ImageCaptioner.from_pretrained(folder)
    assert loaded.config == tiny_captioner.config
    assert not loaded.training
    assert loaded.decoder.output.weight is loaded.decoder.embedding.weight
    before, after = tiny_captioner.half().float().caption(photograph_paths), loaded.caption(photograph_paths)
    assert all(same(a, b) for a, b in zip(before, after, strict=True))
    (folder / "README.md").write_text("my own card")
    loaded.save_pretrained(folder)
    assert (folder / "README.md").read_text() == "my own card"
    assert (folder / "LICENSE").read_text() == "Be kind."


def broken(checkpoint: Path, folder: Path, **changes: Any) -> Path:
    """A copy of the checkpoint with config fields changed, or None removed."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    return folder


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"vocabulary_size": 99}, "vocabulary_size is 99; expected the tokenizer's"),
        ({"width": 32}, r"decoder\.embedding\.weight has shape \[\d+, 16\], expected \[\d+, 32\]"),
        ({"width": -1}, "width is -1; expected 1 to 8192"),
        ({"width": "16"}, "width is '16'; expected int"),
        ({"width": ...}, r"missing keys \['width'\]"),
        ({"decoder": "lstm"}, r"decoder\.backward_cell\.weight_ih_l0 is not part of this captioner"),
        ({"encoder": "vit"}, "encoder is 'vit'; expected one of"),
        ({"architectures": ["BertModel"]}, r"unknown keys \['architectures'\]"),
        ({"search": {"beams": 3}}, "SearchConfig has missing keys"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    checkpoint: Path, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        ImageCaptioner.from_pretrained(broken(checkpoint, tmp_path / "broken", **changes))


def test_weights_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    folder = broken(checkpoint, tmp_path / "broken")
    path = folder / "model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    some = "decoder.hidden.bias"

    def refused(complaint: str) -> None:
        with pytest.raises(CheckpointError, match=complaint):
            ImageCaptioner.from_pretrained(folder)

    save_file({name: tensor for name, tensor in tensors.items() if name != some}, path)
    refused(f"does not fit config.json: {some} is missing")
    save_file(tensors | {"extra": torch.zeros(1)}, path)
    refused("extra is not part of this captioner")
    save_file(tensors | {some: tensors[some].long()}, path)
    refused(f"{some} is I64, expected one of BF16, F16, F32")
    save_file(tensors | {some: torch.full_like(tensors[some], float("nan"))}, path)
    refused(f"not finite in {some}")
    path.write_bytes(whole[:-10])
    refused("no whole safetensors file")
    torch.save(tensors, path)
    refused("no whole safetensors file")
    path.unlink()
    refused("lacks model.safetensors; expected a captioner's config.json, tokenizer.json, model.safetensors")
    (folder / "config.json").write_text("{")
    path.write_bytes(whole)
    refused("is not JSON")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for wrong in (tmp_path / "gone", str(tmp_path / "gone"), "./gone"):
        with pytest.raises(CheckpointError, match="is not a folder; expected a checkpoint folder or a Hub id"):
            ImageCaptioner.from_pretrained(wrong)
