"""A captioner saves and loads exactly what it is, and refuses what it is not."""

import dataclasses
import importlib.util
import json
import pickle
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_captioner import CaptionerConfig, CheckpointError, ConfigError, ImageCaptioner
from hf_captioner.config import ATTENTIONS, DECODERS, DEFAULT_LAYERS
from hf_captioner.errors import MissingExtraError
from hf_captioner.hub.evaluation import Evaluation, Scores
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.modeling.tokenizer import CaptionTokenizer

FILES = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tiny_captioner: ImageCaptioner, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    tiny_captioner.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# -- saving and loading ------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(saved: Path, image_paths: list[Path], tmp_path: Path) -> None:
    first = ImageCaptioner.from_pretrained(saved)
    first.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved)
    second = ImageCaptioner.from_pretrained(str(tmp_path / "again"))
    assert second.config == first.config
    before, after = (
        [caption.to_dict(attention=True) for caption in model.caption(image_paths)] for model in (first, second)
    )
    assert before == after
    assert len({caption["caption"] for caption in before}) > 1


def test_the_folder_holds_exactly_these_files_readable_by_all(tiny_captioner: ImageCaptioner, tmp_path: Path) -> None:
    tiny_captioner.save_pretrained(tmp_path / "plain")
    assert set(contents(tmp_path / "plain")) == FILES
    tiny_captioner.weights_license = "The weights' own terms.\n"
    tiny_captioner.save_pretrained(tmp_path / "licensed")
    assert set(contents(tmp_path / "licensed")) == {*FILES, "LICENSE"}
    assert len({path.stat().st_mode for path in (tmp_path / "licensed").iterdir()}) == 1
    loaded = ImageCaptioner.from_pretrained(tmp_path / "licensed")
    assert loaded.weights_license == "The weights' own terms.\n"


def test_on_disk_float16_without_duplicates_in_memory_float32_and_tied(saved: Path) -> None:
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}
        assert "decoder.embedding.weight" in file.keys() and "decoder.output.weight" not in file.keys()
    loaded = ImageCaptioner.from_pretrained(saved)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.decoder.output.weight is loaded.decoder.embedding.weight
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize("encoder", [*DEFAULT_LAYERS, "timm:resnet10t"])
def test_every_number_of_every_kind_of_captioner_is_saved(encoder: str, tiny_tokenizer: CaptionTokenizer) -> None:
    size = 299 if encoder == "inception_v3" else 224
    with torch.device("meta"):
        for decoder, attention, tied in [
            *((d, "dot", True) for d in DECODERS),
            *(("gru", a, False) for a in ATTENTIONS),
        ]:
            config = CaptionerConfig(
                len(tiny_tokenizer),
                encoder=encoder,
                image_size=size,
                decoder=decoder,
                attention=attention,
                tie_embeddings=tied,
            )
            captioner = ImageCaptioner(config, tiny_tokenizer)
            stored = {name for name, _ in captioner.named_parameters()}
            assert set(captioner.state_dict()) - stored == ({"decoder.output.weight"} if tied else set())


def test_loading_needs_no_network_and_prints_nothing(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    ImageCaptioner.from_pretrained(saved)
    assert capfd.readouterr() == ("", "")


def test_a_card_that_a_person_wrote_is_kept_and_one_that_nobody_touched_follows_the_results(
    tiny_captioner: ImageCaptioner, saved: Path, tmp_path: Path
) -> None:
    scores = Scores("Flickr8k", "validation", {"CIDEr": 0.5271}, "PTB", "python -m hf_captioner.training.evaluate")
    tiny_captioner.evaluation = Evaluation(scores=(scores,))
    tiny_captioner.save_pretrained(saved)
    assert "| 52.7 |" in (saved / "README.md").read_text()
    (saved / "README.md").write_text("My own words.\n")
    tiny_captioner.save_pretrained(saved)
    assert (saved / "README.md").read_text() == "My own words.\n"
    ImageCaptioner.from_pretrained(saved).save_pretrained(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "README.md").read_text() == "My own words.\n"


def test_a_full_disk_leaves_the_old_checkpoint_whole(saved: Path, tiny_captioner: ImageCaptioner) -> None:
    before = contents(saved)
    torch.nn.init.ones_(tiny_captioner.decoder.embedding.weight)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"saved cannot be written \(.*\); what was there is as it was"):
            tiny_captioner.save_pretrained(saved)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(saved) == before


def test_a_place_that_cannot_be_written_is_named(tiny_captioner: ImageCaptioner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file cannot be written"):
        tiny_captioner.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("number", [float("nan"), 1e6])
def test_numbers_that_float16_cannot_hold_are_not_saved(
    tiny_captioner: ImageCaptioner, saved: Path, number: float
) -> None:
    before = contents(saved)
    with torch.no_grad():
        tiny_captioner.decoder.gate.bias[3] = number
    with pytest.raises(CheckpointError, match=r"float16 cannot hold the numbers in decoder\.gate\.bias"):
        tiny_captioner.save_pretrained(saved)
    assert contents(saved) == before


# -- what is refused ---------------------------------------------------------------------------------------------------


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def replace_by_pickle(path: Path, protocol: int | None) -> None:
    if protocol is None:
        torch.save({"weight": torch.ones(3)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(), protocol))


class Trap:
    """Unpickled, it fails the test."""

    def __reduce__(self) -> Any:
        return pytest.fail, ("a pickle was loaded",)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"isn't a captioner: model\.safetensors is missing"),
    "no words": (lambda f: (f / "tokenizer.json").unlink(), r"isn't a captioner: tokenizer\.json is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), r"isn't a captioner: config\.json is missing"),
    "config not JSON": (lambda f: cut(f / "config.json", 0.5), r"config\.json is not readable JSON \(.*line"),
    "config not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), r"config\.json is not readable JSON"),
    "config a list": (
        lambda f: (f / "config.json").write_text("[1]"),
        r"config\.json expects a JSON object; found list",
    ),
    "config of another library": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit", "hidden_size": 768}'),
        r"another kind of model \(model_type 'vit', keys model_type, hidden_size\); expected one that",
    ),
    "unknown key": (
        lambda f: change_config(f, hiden_size=16),
        r"CaptionerConfig has no 'hiden_size'; it has the keys vocabulary_size, encoder",
    ),
    "wrong type": (lambda f: change_config(f, hidden_size="16"), r"CaptionerConfig\.hidden_size is '16'; expected int"),
    "a node that is not there": (lambda f: change_config(f, encoder_layer="layer9"), r"encoder_layer is 'layer9'"),
    "an encoder from somewhere": (
        lambda f: change_config(f, encoder="timm:hf-hub:stranger/model", encoder_layer=None),
        r"encoder is 'timm:hf-hub:stranger/model'; expected one of .*, or timm:NAME with a name of timm",
    ),
    "an encoder that timm lacks": (
        lambda f: change_config(f, encoder="timm:resnet9000", encoder_layer=None),
        r"is not a whole captioner: timm .* has no model 'resnet9000'",
    ),
    "words and config differ": (
        lambda f: change_config(f, vocabulary_size=99),
        r"vocabulary_size is 99; expected the tokenizer's \d+",
    ),
    "words not a tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json is not a tokenizer"),
    "weights of another width": (
        lambda f: change_config(f, hidden_size=24),
        r"does not fit config\.json: decoder\.\S+ has shape \[.*\], expected \[.*\].* and \d+ more",
    ),
    "a tensor is missing": (
        lambda f: change_weights(f, lambda t: t.pop("decoder.gate.bias")),
        r"does not fit config\.json: decoder\.gate\.bias is missing\.$",
    ),
    "a tensor too many": (
        lambda f: change_weights(f, lambda t: t.update(extra=torch.ones(1))),
        r"extra is not part of this captioner\.$",
    ),
    "integers": (
        lambda f: change_weights(f, lambda t: t.update({"decoder.gate.bias": torch.ones(16, dtype=torch.int64)})),
        r"decoder\.gate\.bias is I64, expected one of BF16, F16, F32",
    ),
    "not a number": (
        lambda f: change_weights(f, lambda t: t["decoder.gate.bias"].fill_(float("inf"))),
        r"numbers that are not finite in decoder\.gate\.bias",
    ),
    "truncated": (lambda f: cut(f / "model.safetensors", 0.9), r"no whole safetensors file \(.*\); download"),
    "truncated header": (lambda f: cut(f / "model.safetensors", 0.001), r"no whole safetensors file"),
    "empty": (lambda f: cut(f / "model.safetensors", 0), r"no whole safetensors file"),
    "a torch file": (lambda f: replace_by_pickle(f / "model.safetensors", None), r"a pickle, which is never loaded"),
    "an old pickle": (lambda f: replace_by_pickle(f / "model.safetensors", 2), r"a pickle, which is never loaded"),
    "a new pickle": (lambda f: replace_by_pickle(f / "model.safetensors", 5), r"a pickle, which is never loaded"),
    "a Git LFS pointer": (
        lambda f: (f / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        r"Git LFS pointer and not the weights themselves; run `git lfs pull`",
    ),
}


@pytest.mark.parametrize("harm", BAD)
def test_a_checkpoint_that_is_not_whole_is_refused_in_one_sentence(saved: Path, harm: str) -> None:
    spoil, sentence = BAD[harm]
    spoil(saved)
    with pytest.raises(CheckpointError, match=sentence) as caught:
        ImageCaptioner.from_pretrained(saved)
    assert "\n" not in str(caught.value) and str(saved) in str(caught.value)


ABSURD: list[Any] = [None, True, "x", -1, 0, 10**12, 10**400, 1e308, -1e308, [], [-1] * 3, [1e300] * 3, {}, {"x": -1}]


def test_whatever_stands_in_its_json_files_it_is_refused_or_harmless(saved: Path, image: Image.Image) -> None:
    """Each key of each file gone, and each of each kind of nonsense in its place."""
    refused = 0
    for file in ("config.json", "generation_config.json"):
        whole = json.loads((saved / file).read_text())
        for name in whole:
            for value in (KeyError, *ABSURD):
                changed = {**whole, name: value}
                if value is KeyError:
                    del changed[name]
                (saved / file).write_text(json.dumps(changed))
                try:
                    said = ImageCaptioner.from_pretrained(saved).caption(image, num_return_sequences=1).text
                except (CheckpointError, ConfigError) as error:
                    said = str(error)
                    refused += 1
                assert "\n" not in said and len(said) < 1000, (name, value)
        (saved / file).write_text(json.dumps(whole))
    assert refused > 250


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"hidden_size": NaN}', '{"hidden_size": 1e999}', '{"hidden_size": ' + "9" * 5000 + "}"]
)
def test_json_that_would_break_its_reader_is_refused(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ImageCaptioner.from_pretrained(saved)


def test_nothing_large_is_allocated_for_weights_that_do_not_fit(saved: Path) -> None:
    change_config(saved, hidden_size=8192, backward_hidden_size=8192)  # 5 GB of weights
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"does not fit config\.json"):
        ImageCaptioner.from_pretrained(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_whole_checkpoint_whose_encoders_library_is_missing_says_what_to_install(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_config(saved, encoder="timm:resnet10t", encoder_layer=None)
    found = importlib.util.find_spec
    monkeypatch.setattr("hf_captioner.errors.find_spec", lambda name: None if name == "timm" else found(name))
    with pytest.raises(MissingExtraError, match=r"^The encoder timm:resnet10t needs packages .*hf-captioner\[timm\]"):
        ImageCaptioner.from_pretrained(saved)


def test_a_tokenizer_that_does_not_fit_is_refused_at_once(
    tiny_config: CaptionerConfig, tiny_tokenizer: CaptionTokenizer
) -> None:
    with pytest.raises(ConfigError, match=r"vocabulary_size is 1000; expected the tokenizer's"):
        ImageCaptioner(dataclasses.replace(tiny_config, vocabulary_size=1000), tiny_tokenizer)


# -- the bundled checkpoint --------------------------------------------------------------------------------------------


def test_the_bundled_checkpoint_is_small_licensed_and_says_what_was_measured() -> None:
    captioner = ImageCaptioner.from_pretrained()
    folder = bundled_checkpoint()
    assert set(contents(folder)) == {*FILES, "evaluation.json", "LICENSE"}
    assert (folder / "model.safetensors").stat().st_size <= 64_000_000
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.license_link) == ("other", "LICENSE")
    measured = captioner.evaluation.scores
    assert {scores.dataset for scores in measured} == {data.name for data in captioner.evaluation.trained_on}
    shown = {(found.dataset_name, found.metric_name): found.metric_value for found in card.data.eval_results}
    assert shown == {
        (scores.dataset, name): pytest.approx(100 * value, abs=0.006)
        for scores in measured
        for name, value in scores.metrics.items()
    }
