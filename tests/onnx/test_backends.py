"""ONNX Runtime underneath: the same captioner, the same captions, and whatever goes wrong is one sentence."""

import copy
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image

from hf_captioner import Caption, CheckpointError, ConfigError, ImageCaptioner
from hf_captioner.errors import MissingExtraError
from hf_captioner.hub import exported as exporting
from hf_captioner.modeling.device import DTYPES, Way, has_bfloat16
from hf_captioner.modeling.encoder import Encoder, FeatureMap
from hf_captioner.onnx import cache
from hf_captioner.onnx.export import EXPORT_FILES, METADATA
from tests.conftest import generated

SEARCHES = [
    {"num_beams": 1},
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 2},
    {"do_sample": True, "num_return_sequences": 3, "seed": 7},
    {"prefix": "a dog", "no_repeat_ngram_size": 2, "max_length": 6},
]


def assert_same(one: Caption, other: Caption) -> None:
    assert [each.text for each in one.candidates] == [each.text for each in other.candidates]
    for mine, theirs in zip(one.words, other.words, strict=True):
        assert mine.probability == pytest.approx(theirs.probability, abs=1e-4)
        assert abs(mine.attention - theirs.attention).max() < 1e-4


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_captions_are_the_same(exported: Path, search: dict[str, object]) -> None:
    torch_one, onnx_one = (ImageCaptioner.from_pretrained(exported, backend=name) for name in ("torch", "onnx"))
    assert (torch_one.backend, onnx_one.backend) == ("torch", "onnx")
    images = [generated(seed) for seed in range(12)]
    for one, other in zip(torch_one.caption(images, **search), onnx_one.caption(images, **search), strict=True):  # type: ignore[arg-type]
        assert_same(one, other)
    alone = onnx_one.caption(images[3], **search)  # type: ignore[arg-type]
    assert_same(alone, onnx_one.caption(images, batch_size=5, **search)[3])  # type: ignore[arg-type]


def test_the_bundled_captioner_says_the_same_and_in_int8_almost(image_path: Path) -> None:
    examples = sorted((Path(__file__).parents[2] / "space/examples").glob("*.jpg"))
    plain, float32, int8 = (
        ImageCaptioner.from_pretrained(backend=backend, dtype=dtype).caption(examples)
        for backend, dtype in (("torch", "auto"), ("onnx", "auto"), ("auto", "int8"))
    )
    for one, same, near in zip(plain, float32, int8, strict=True):
        assert_same(one, same)
        assert one.confidence == pytest.approx(same.confidence, abs=1e-4)
        assert near.confidence is not None and abs(near.confidence - (one.confidence or 0)) < 0.15
    assert sum(one.text == near.text for one, near in zip(plain, int8, strict=True)) >= 3


def test_an_export_is_made_once_and_kept(checkpoint: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ImageCaptioner.from_pretrained(checkpoint, backend="onnx")
    monkeypatch.setattr(exporting, "export_graphs", None)  # called again, it would fail
    again = ImageCaptioner.from_pretrained(checkpoint, backend="onnx")
    assert_same(first.caption(generated(1)), again.caption(generated(1)))
    assert len(list(own_cache.iterdir())) == 1


def test_an_export_that_breaks_off_leaves_nothing(
    checkpoint: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: object, **options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(exporting, "export_graphs", broken)
    with pytest.raises(CheckpointError, match="cannot be kept in"):
        ImageCaptioner.from_pretrained(checkpoint, backend="onnx")
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


PLAIN, ROUNDED, ONNX = Way("torch", torch.float32), Way("torch", torch.bfloat16), Way("onnx", torch.float32)


@pytest.mark.parametrize("quicker", [PLAIN, ROUNDED, ONNX])
def test_auto_takes_what_was_measured_to_be_the_quickest(
    exported: Path, own_cache: Path, quicker: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ImageCaptioner.from_pretrained(exported)
    assert (before.backend, before.dtype) == PLAIN  # nothing was measured yet
    before.take_quickest()
    (key,) = (path.name for path in own_cache.iterdir())
    cache.keep_seconds(key, {PLAIN: 1.0, ROUNDED: 1.0, ONNX: 1.0, quicker: 0.5})
    taken = ImageCaptioner.from_pretrained(exported)
    assert (taken.backend, taken.dtype) == quicker
    before.take_quickest()
    assert (before.backend, before.dtype) == quicker
    for dtype in ("float32", "bfloat16", "int8"):  # what is asked for is kept to
        assert ImageCaptioner.from_pretrained(exported, dtype=dtype).dtype == DTYPES[dtype]
    assert ImageCaptioner.from_pretrained(exported, backend="torch").backend == "torch"
    monkeypatch.setattr(cache, "machine", lambda: "another processor, 64 threads")
    other = ImageCaptioner.from_pretrained(exported)
    assert (other.backend, other.dtype) == PLAIN


def test_auto_exports_nothing_by_itself_but_for_what_captions_for_long(checkpoint: Path, own_cache: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(checkpoint)
    assert captioner.backend == "torch" and not list(own_cache.rglob("*.onnx"))
    before = captioner.caption(generated(2))
    captioner.take_quickest()
    (key,) = (path.name for path in own_cache.iterdir())
    seconds = cache.kept_seconds(key)
    assert seconds is not None and {PLAIN, ONNX} <= set(seconds) and all(0 < spent < 10 for spent in seconds.values())
    assert (ROUNDED in seconds) == has_bfloat16()
    assert (captioner.backend, captioner.dtype) == min(seconds, key=seconds.__getitem__)
    if captioner.dtype == torch.float32:
        assert_same(before, captioner.caption(generated(2)))


def test_a_kept_export_that_is_broken_is_made_again(checkpoint: Path, own_cache: Path) -> None:
    ImageCaptioner.from_pretrained(checkpoint, backend="onnx")
    for backend in ("auto", "onnx"):
        (graph,) = own_cache.glob("*/decoder_model.onnx")
        whole = graph.stat().st_size
        graph.write_bytes(graph.read_bytes()[: whole // 2])
        captioner = ImageCaptioner.from_pretrained(checkpoint, backend=backend)
        captioner.take_quickest()
        assert graph.stat().st_size == whole
    assert captioner.caption(generated(3)).text


@pytest.mark.parametrize("fault", [CheckpointError("PyTorch cannot export it."), OSError("No space left on device")])
def test_what_cannot_be_exported_keeps_no_page_from_opening(
    checkpoint: Path, fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*given: object, **options: object) -> None:
        raise fault

    monkeypatch.setattr(exporting, "export_graphs", refused)
    captioner = ImageCaptioner.from_pretrained(checkpoint)
    captioner.take_quickest()
    assert captioner.backend == "torch" and captioner.caption(generated(3)).text
    assert str(fault).rstrip(".") in caplog.text and "are computed as before" in caplog.text


def test_what_pytorch_cannot_export_is_one_sentence(
    saved_captioner: ImageCaptioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looks_at_values(self: object, pixels: torch.Tensor) -> FeatureMap:
        return FeatureMap(pixels.flatten(2) if pixels.sum() > 0 else pixels.flatten(2) + 1, 1, 1)

    monkeypatch.setattr(Encoder, "forward", looks_at_values)
    with pytest.raises(CheckpointError, match="cannot export encoder_model to ONNX") as caught:
        saved_captioner.export_onnx(tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out/onnx").exists()


def test_int8_first_keeps_nobody_from_measuring_later(checkpoint: Path, own_cache: Path) -> None:
    ImageCaptioner.from_pretrained(checkpoint, dtype="int8")
    (key,) = (path.name for path in own_cache.iterdir())
    assert cache.kept_seconds(key) is None
    captioner = ImageCaptioner.from_pretrained(checkpoint)
    captioner.take_quickest()
    seconds = cache.kept_seconds(key)
    assert seconds is not None and ONNX in seconds
    cache.keep_seconds(key, {PLAIN: 1e-9})  # by a machine that had no ONNX Runtime yet
    captioner.take_quickest()
    assert ONNX in (cache.kept_seconds(key) or {})


def test_a_home_that_cannot_be_written_keeps_nobody_from_loading(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "cache_folder", lambda key: Path("/proc/nothing") / key)
    assert ImageCaptioner.from_pretrained(checkpoint).backend == "torch"
    with pytest.raises(CheckpointError, match="cannot be kept in /proc/nothing"):
        ImageCaptioner.from_pretrained(checkpoint, backend="onnx")


def test_a_broken_memory_of_what_was_measured_is_forgotten(exported: Path, own_cache: Path) -> None:
    ImageCaptioner.from_pretrained(exported).take_quickest()
    (kept,) = own_cache.glob("*/seconds.json")
    for content in ("", "[]", "{}", '{"machine": 1, "seconds": {"torch": 1}}', '{"seconds": {"torch float99": 1}}'):
        kept.write_text(content)
        again = ImageCaptioner.from_pretrained(exported)
        assert (again.backend, again.dtype) == PLAIN


def test_a_weight_that_changes_is_heeded(exported: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(exported, backend="onnx")
    with torch.no_grad():
        captioner.decoder.output.bias[captioner.tokenizer.encode("dog")] += 50
    assert captioner.backend == "torch"
    assert {word.text for word in captioner.caption(generated(0), no_repeat_ngram_size=0).words} == {"dog"}


def test_it_trains_saves_and_moves_like_any_other(exported: Path, tmp_path: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(exported, backend="onnx")
    plain = ImageCaptioner.from_pretrained(exported, backend="torch")
    plain.to(memory_format=torch.contiguous_format)  # in another one sums are taken in another order
    pixels = torch.randn(1, 3, 64, 64)
    for one in (captioner, plain):
        one.encoder(pixels).values.sum().backward()
    for mine, theirs in zip(captioner.encoder.parameters(), plain.encoder.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        assert mine.grad is None or torch.equal(mine.grad, theirs.grad)
    assert captioner.state_dict().keys() == plain.state_dict().keys()
    captioner.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()
    assert captioner.to("cpu").backend == "onnx"
    assert captioner.bfloat16().backend == "torch" and captioner.float().backend == "onnx"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_computes_alike_and_by_pytorch_where_the_export_is_gone(
    exported: Path, duplicate: object, image: Image.Image
) -> None:
    captioner = ImageCaptioner.from_pretrained(exported, backend="onnx", dtype="int8")
    again = duplicate(captioner)  # type: ignore[operator]
    assert again.backend == "onnx"
    assert_same(captioner.caption(image), again.caption(image))
    pickled = pickle.dumps(captioner)
    shutil.rmtree(exported / "onnx")
    alone = pickle.loads(pickled)
    assert (alone.backend, alone.dtype) == ("torch", torch.float32)
    assert_same(ImageCaptioner.from_pretrained(exported, backend="torch").caption(image), alone.caption(image))


COMMAND = """
import sys
from hf_captioner.cli import main
code = main(["caption", sys.argv[1], "--model", sys.argv[2], "--backend", "onnx"])
imported = {name.partition(".")[0] for name in sys.modules} & {"torchvision", "gradio", "timm", "onnx", "onnxscript"}
sys.exit(code or len(imported) and str(imported))
"""


def test_one_caption_imports_only_what_it_uses(exported: Path, image_path: Path) -> None:
    command = [sys.executable, "-c", COMMAND, str(image_path), str(exported)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{image_path}\t")


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def sentence(folder: Path) -> str:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(CheckpointError) as caught:
        ImageCaptioner.from_pretrained(folder, backend="onnx")
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert ImageCaptioner.from_pretrained(folder).backend == "torch"  # which needs no export
    return str(caught.value)


def rewritten(path: Path, *, opset: int | None = None, about: str | None = None) -> None:
    proto = onnx.load(path)
    if opset is not None:
        proto.opset_import[0].version = opset
    if about is not None:
        onnx.helper.set_model_props(proto, {METADATA: about})
    path.write_bytes(proto.SerializeToString())


@pytest.mark.parametrize("name", EXPORT_FILES[:3])
def test_a_graph_that_is_missing_or_broken(exported: Path, name: str) -> None:
    path = exported / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is no graph of a captioner that ONNX Runtime" in sentence(exported)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is no graph of a captioner that ONNX Runtime" in sentence(exported)
    path.unlink()
    assert f"is no whole export of a captioner: {path.name} is missing; export it again" in sentence(exported)


def test_a_graph_of_another_opset_format_or_library(exported: Path) -> None:
    path = exported / EXPORT_FILES[2]
    whole = path.read_bytes()
    for change, told in (
        ({"opset": 99}, "is no graph of a captioner that ONNX Runtime"),
        ({"about": '{"format": 2, "key": "k"}'}, "has format 2; this hf-captioner reads format 1"),
        ({"about": "{}"}, "is no graph of a captioner"),
        ({"about": "no JSON"}, "is no graph of a captioner"),
        ({"about": "[]"}, "is no graph of a captioner"),
    ):
        path.write_bytes(whole)
        rewritten(path, **change)  # type: ignore[arg-type]
        assert told in sentence(exported), change


def test_an_export_of_earlier_weights(exported: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(exported, backend="torch")
    with torch.no_grad():
        captioner.decoder.output.bias.add_(0.5)
    captioner.save_pretrained(exported)
    assert "is the export of another captioner, or of earlier weights; export it again" in sentence(exported)
    captioner.export_onnx(exported)
    assert ImageCaptioner.from_pretrained(exported, backend="onnx").backend == "onnx"


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "tensorflow"},
        {"backend": "onnx", "dtype": "bfloat16"},
        {"backend": "torch", "dtype": "int8"},
        {"backend": "onnx", "device": "meta"},
        {"dtype": "int8", "device": "meta"},
    ],
    ids=str,
)
def test_what_does_not_go_together_is_said(exported: Path, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"expected auto, torch, onnx|do not go together; torch computes in float32"):
        ImageCaptioner.from_pretrained(exported, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", ["onnxruntime", "onnxscript"])
def test_without_the_extra_it_says_what_to_install(
    checkpoint: Path, own_cache: Path, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_captioner import errors

    found = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == absent else found(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'hf-captioner\[onnx\]"):
        ImageCaptioner.from_pretrained(checkpoint, backend="onnx")
    with pytest.raises(MissingExtraError, match=r"pip install 'hf-captioner\[onnx\]"):
        ImageCaptioner.from_pretrained(checkpoint, backend="torch").export_onnx(own_cache / "out")
