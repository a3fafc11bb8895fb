"""Every kind of captioner as ONNX graphs: they compute what PyTorch computes, for any number of images and words."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hf_captioner import CaptionerConfig, CheckpointError, ImageCaptioner
from hf_captioner.modeling.encoder import FeatureMap
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.onnx.export import EXPORT_FILES, OPSET, TOLERANCE
from tests.conftest import SENTENCES

KINDS = [
    ("resnet18", "bilstm", "dot", 64),
    ("resnet50", "lstm", "dot", 64),
    ("vgg16", "gru", "dot", 64),
    ("inception_v3", "gru", "none", 96),
    ("timm:tf_efficientnet_lite2", "bilstm", "none", 64),
    ("timm:efficientnet_lite0", "lstm", "none", 64),
]


def close(found: np.ndarray, expected: torch.Tensor) -> bool:
    return float(np.abs(found - expected.numpy()).max()) <= TOLERANCE * float(expected.abs().max())


def captioner_of(encoder: str, decoder: str, attention: str, size: int, **sizes: int) -> ImageCaptioner:
    torch.manual_seed(0)
    tokenizer = CaptionTokenizer.build(SENTENCES, min_count=1)
    kinds = {"encoder": encoder, "decoder": decoder, "attention": attention, "image_size": size}
    return ImageCaptioner(CaptionerConfig(len(tokenizer), **kinds, **sizes), tokenizer)  # type: ignore[arg-type]


@pytest.mark.parametrize(("encoder", "decoder", "attention", "size"), KINDS)
def test_each_graph_computes_what_pytorch_does(
    encoder: str, decoder: str, attention: str, size: int, tmp_path: Path
) -> None:
    built = captioner_of(encoder, decoder, attention, size, hidden_size=12, backward_hidden_size=8)
    built.save_pretrained(tmp_path / "saved")
    captioner = ImageCaptioner.from_pretrained(tmp_path / "saved", backend="torch")
    captioner.export_onnx(tmp_path)
    sessions = [
        onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"]) for name in EXPORT_FILES[:3]
    ]
    for images, hypotheses, words in ((1, 1, 1), (3, 4, 5)):
        pixels = torch.randn(images, 3, size, size)
        with torch.inference_mode():
            features = captioner.encoder(pixels)
            state = captioner.decoder.start(features)
        (found,) = sessions[0].run(None, {"pixel_values": pixels.numpy()})
        assert close(found, features.values)
        keys, values, *recurrent = sessions[1].run(None, {"feature_map": features.values.numpy()})
        assert close(keys, state.features.keys) and close(values, state.features.values)
        ids = torch.randint(len(built.tokenizer), (images, hypotheses, words))
        shape = (images, hypotheses, built.config.hidden_size)
        fed = dict(
            zip(("hidden", "cell"), (np.repeat(part[:, None], hypotheses, 1) for part in recurrent), strict=False)
        )
        fed |= {"keys": keys, "values": values, "context": np.zeros(shape, np.float32)}
        state = state.select(torch.arange(images).repeat_interleave(hypotheses))
        for word in range(words):
            with torch.inference_mode():
                step = captioner.decoder.step(ids[:, :, word].flatten(), state)
            state = step.state
            outputs = sessions[2].run(None, {**fed, "input_ids": ids[:, :, : word + 1].numpy()})
            named = dict(zip((each.name for each in sessions[2].get_outputs()), outputs, strict=True))
            fed |= {name.removeprefix("next_"): value for name, value in named.items() if name.startswith("next_")}
            assert close(named["log_probs"].reshape(images * hypotheses, -1), step.log_probs)
            assert close(named["attention"].reshape(images * hypotheses, -1), step.attention)


@pytest.mark.parametrize(("encoder", "decoder", "attention", "size"), KINDS[:5:2])
def test_a_pages_graphs_have_small_weights_and_compute_nearly_the_same(
    encoder: str, decoder: str, attention: str, size: int, tmp_path: Path
) -> None:
    captioner = captioner_of(encoder, decoder, attention, size, hidden_size=64, backward_hidden_size=32)
    captioner.export_web(tmp_path / "model")
    stored = sum(path.stat().st_size for path in (tmp_path / "model" / "onnx").iterdir())
    assert stored < 0.35 * 4 * sum(parameter.numel() for parameter in captioner.parameters()) + 300_000
    pixels = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        features = captioner.encoder(pixels)
        start = captioner.decoder.start(features)
        step = captioner.decoder.step(torch.zeros(2, dtype=torch.long), start)
    captioner.take_export(tmp_path / "model" / "onnx", torch.int8)
    runtime = captioner.runtime
    assert runtime is not None
    found = runtime.encode(pixels)
    assert 0 < (found.values - features.values).norm() < 0.1 * features.values.norm()
    again = runtime.step(torch.zeros(2, dtype=torch.long), runtime.start(found))
    assert (again.log_probs - step.log_probs).abs().max() < 0.1
    with pytest.raises(CheckpointError, match="another captioner, or of earlier weights"):
        captioner_of(encoder, decoder, attention, size, hidden_size=64).take_export(
            tmp_path / "model" / "onnx", torch.int8
        )


def test_an_export_is_what_the_hubs_repositories_have(exported_once: Path, checkpoint: Path) -> None:
    found = {path.relative_to(exported_once).as_posix() for path in exported_once.rglob("*") if path.is_file()}
    assert {f"onnx/{name}.onnx" for name in ("encoder_model", "decoder_model", "decoder_start_model")} <= found
    assert found == {*EXPORT_FILES, "onnx/README.md", *(path.name for path in checkpoint.iterdir())}
    for name in EXPORT_FILES:
        proto = onnx.load(exported_once / name)
        onnx.checker.check_model(proto, full_check=True)
        assert proto.opset_import[0].version == OPSET
    readme = (exported_once / "onnx/README.md").read_text()
    for name in EXPORT_FILES[:3]:
        session = onnxruntime.InferenceSession(exported_once / name, providers=["CPUExecutionProvider"])
        for each in (*session.get_inputs(), *session.get_outputs()):
            assert f"| `{each.name}` | {' x '.join(map(str, each.shape))} |" in readme


def test_an_export_alone_has_what_another_program_needs(saved_captioner: ImageCaptioner, tmp_path: Path) -> None:
    saved_captioner.export_onnx(tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "onnx", "config.json", "generation_config.json", "tokenizer.json"
    }  # fmt: skip
    assert json.loads((tmp_path / "new/config.json").read_text())["image_size"] == saved_captioner.config.image_size


def test_an_export_into_another_captioners_folder_changes_nothing(
    tiny_captioner: ImageCaptioner, exported: Path
) -> None:
    tiny_captioner.config = dataclasses.replace(tiny_captioner.config, image_mean=(0.4, 0.4, 0.4))
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="holds another captioner, for its config"):
        tiny_captioner.export_onnx(exported)
    assert before == {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}


def test_a_folder_that_cannot_be_written_is_one_sentence(saved_captioner: ImageCaptioner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written"):
        saved_captioner.export_onnx(tmp_path / "file")


def test_masked_features_are_refused_in_a_sentence(exported: Path) -> None:
    captioner = ImageCaptioner.from_pretrained(exported, backend="onnx")
    features = captioner.encode(torch.zeros(1, 3, 64, 64))
    masked = FeatureMap(features.values, features.height, features.width, torch.ones(1, 64, dtype=torch.bool))
    with pytest.raises(ValueError, match="takes no mask"):
        captioner.caption_features(masked, captioner.generation_config)
