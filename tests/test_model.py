"""A captioner saves and loads exactly what it is, refuses what it is not, and captions any number of photographs."""

import dataclasses
import io
import json
import pickle
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_captioner import Caption, CaptionerConfig, CheckpointError, ConfigError, ImageCaptioner, ImageError
from hf_captioner.config import ATTENTIONS, DECODERS, DEFAULT_NODES, Results
from hf_captioner.hub import bundled_checkpoint
from hf_captioner.tokenizer import CaptionTokenizer

FILES = {"README.md", "config.json", "model.safetensors", "tokenizer.json"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tiny_captioner: ImageCaptioner, tmp_path: Path) -> Path:
    """A checkpoint to do harm to."""
    tiny_captioner.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# -- saving and loading ------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(saved: Path, photograph_paths: list[Path], tmp_path: Path) -> None:
    first = ImageCaptioner.from_pretrained(saved)
    first.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved)
    second = ImageCaptioner.from_pretrained(str(tmp_path / "again"))
    assert second.config == first.config
    before, after = (
        [caption.to_dict(attention=True) for caption in model.caption(photograph_paths)] for model in (first, second)
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


@pytest.mark.parametrize("encoder", DEFAULT_NODES)
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
    results = Results("Flickr8k", "dev", {"CIDEr": 0.5271}, "PTB", "python -m train.evaluate")
    tiny_captioner.config = dataclasses.replace(tiny_captioner.config, results=results)
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
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"has no model\.safetensors; expected config\.json"),
    "no words": (lambda f: (f / "tokenizer.json").unlink(), r"has no tokenizer\.json; expected"),
    "no config": (lambda f: (f / "config.json").unlink(), r"has no config\.json; expected"),
    "config not JSON": (lambda f: cut(f / "config.json", 0.5), r"config\.json is not readable JSON \(.*line"),
    "config not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), r"config\.json is not readable JSON"),
    "config a list": (lambda f: (f / "config.json").write_text("[1]"), r"expects a JSON object; found list"),
    "config of another library": (
        lambda f: (f / "config.json").write_text('{"model_type": "vit", "hidden_size": 768}'),
        r"another kind of model \(model_type 'vit', keys model_type, hidden_size\); expected one that",
    ),
    "unknown key": (lambda f: change_config(f, widht=16), r"unknown keys \['widht'\]"),
    "wrong type": (lambda f: change_config(f, width="16"), r"CaptionerConfig\.width is '16'; expected int"),
    "a node that is not there": (lambda f: change_config(f, encoder_node="layer9"), r"encoder_node is 'layer9'"),
    "words and config differ": (
        lambda f: change_config(f, vocabulary_size=99),
        r"vocabulary_size is 99; expected the tokenizer's \d+",
    ),
    "words not a tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json is not a tokenizer"),
    "weights of another width": (
        lambda f: change_config(f, width=24),
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


def test_nothing_large_is_allocated_for_weights_that_do_not_fit(saved: Path) -> None:
    change_config(saved, width=8192, backward_width=8192)  # 5 GB of weights
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"does not fit config\.json"):
        ImageCaptioner.from_pretrained(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_a_tokenizer_that_does_not_fit_is_refused_at_once(
    tiny_config: CaptionerConfig, tiny_tokenizer: CaptionTokenizer
) -> None:
    with pytest.raises(ConfigError, match=r"vocabulary_size is 1000; expected the tokenizer's"):
        ImageCaptioner(dataclasses.replace(tiny_config, vocabulary_size=1000), tiny_tokenizer)


# -- captions ----------------------------------------------------------------------------------------------------------


def test_one_in_one_out_a_list_in_a_list_out(tiny_captioner: ImageCaptioner, photograph_paths: list[Path]) -> None:
    one = tiny_captioner.caption(photograph_paths[0])
    assert isinstance(one, Caption)
    assert one.text == " ".join(word.text for word in one.words)
    many = tiny_captioner.caption(tuple(photograph_paths))
    assert [type(caption) for caption in many] == [Caption] * 5 and many[0].text == one.text
    assert tiny_captioner.caption([]) == []
    several = tiny_captioner.caption(photograph_paths[0], num_captions=4)
    assert [caption.score for caption in several] == sorted((caption.score for caption in several), reverse=True)
    assert len({caption.text for caption in several}) == 4
    assert [len(captions) for captions in tiny_captioner.caption(photograph_paths, num_captions=2)] == [2] * 5


def test_a_path_a_picture_bytes_and_an_array_are_captioned_alike(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path]
) -> None:
    path = photograph_paths[1]
    picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
    forms = [path, str(path), path.read_bytes(), picture, np.array(picture)]
    first, *others = tiny_captioner.caption(forms)
    for other in others:
        assert other.text == first.text
        for word, expected in zip(other.words, first.words, strict=True):
            np.testing.assert_allclose(word.attention, expected.attention, atol=1e-5)


def test_a_word_says_how_likely_it_was_and_where_the_model_looked(
    tiny_captioner: ImageCaptioner, photograph: Image.Image
) -> None:
    caption = tiny_captioner.caption(photograph, beams=1, alternatives=3)
    assert caption.words
    for word in caption.words:
        assert word.attention.shape == (8, 8)
        assert word.attention.sum() == pytest.approx(1)
        assert len(word.alternatives) == 3
        assert word.probability <= word.alternatives[0][1] + 1e-6


def test_a_caption_does_not_depend_on_its_batch(tiny_captioner: ImageCaptioner, photograph_paths: list[Path]) -> None:
    alone = [tiny_captioner.caption(path) for path in photograph_paths]
    for batch_size in (2, 3, 5):
        together = tiny_captioner.caption(photograph_paths, batch_size=batch_size)
        assert [caption.text for caption in together] == [caption.text for caption in alone]
        assert [caption.score for caption in together] == pytest.approx([caption.score for caption in alone], abs=1e-4)
    options: dict[str, Any] = {"sample": True, "seed": 7, "num_captions": 3}
    drawn_alone = [tiny_captioner.caption(path, **options) for path in photograph_paths]
    drawn = tiny_captioner.caption(photograph_paths, **options)
    assert [[c.text for c in captions] for captions in drawn] == [
        [c.text for c in captions] for captions in drawn_alone
    ]


def test_the_checkpoints_own_search_holds_where_nothing_is_said(
    tiny_captioner: ImageCaptioner, photograph: Image.Image
) -> None:
    search = dataclasses.replace(tiny_captioner.config.search, max_length=4, begin_with="two children")
    tiny_captioner.config = dataclasses.replace(tiny_captioner.config, search=search)
    caption = tiny_captioner.caption(photograph, min_length=4)
    assert len(caption.words) == 4 and caption.text.startswith("two children ")
    assert len(tiny_captioner.caption(photograph, max_length=6, min_length=6, begin_with="").words) == 6


def test_begin_with_and_avoid(tiny_captioner: ImageCaptioner, photograph: Image.Image) -> None:
    plain = tiny_captioner.caption(photograph, min_length=3)
    word = plain.words[2].text
    steered = tiny_captioner.caption(photograph, begin_with="A brown dog,", avoid=[word, "zebra"], min_length=6)
    assert steered.text.startswith("a brown dog ")
    assert word not in steered.text.split()[3:]


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        ({"beam": 3}, TypeError, r"has no beam; it has the fields beams, num_captions, length_penalty"),
        ({"begin_with": "a zebra jumps 7"}, ConfigError, r"begin_with has 'zebra', '7', not among the model's words"),
        ({"begin_with": "a dog jumps", "max_length": 2}, ConfigError, r"begin_with has 3 words; expected at most"),
        ({"avoid": ["red shirt"]}, ConfigError, r"'red shirt', which is more than one word"),
        ({"avoid": "dog"}, ConfigError, r"avoid is 'dog'; expected tuple\[str, \.\.\.\]"),
        ({"beams": 2, "num_captions": 3}, ConfigError, r"num_captions is 3; expected at most beams \(2\)"),
        ({"temperature": 0.0}, ConfigError, r"temperature is 0\.0; expected more than 0"),
        ({"batch_size": 0}, ConfigError, r"batch_size is 0; expected at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(
    tiny_captioner: ImageCaptioner, options: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        tiny_captioner.stream(iter(["there is no such file.jpg"]), **options)


def test_progress_goes_to_stderr(
    tiny_captioner: ImageCaptioner, photograph: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_captioner.caption([photograph] * 3, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err
    tiny_captioner.caption([photograph] * 3)
    assert capsys.readouterr() == ("", "")


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_keeps_the_order_and_a_bad_picture_its_place(
    tiny_captioner: ImageCaptioner, photograph_paths: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    paths = [tmp_path / "broken.jpg", *photograph_paths[:3], tmp_path / "none.jpg", *photograph_paths[3:]]
    expected = [caption.text for caption in tiny_captioner.caption(photograph_paths)]
    for batch_size in (1, 2, 32):
        results = list(tiny_captioner.stream(iter(paths), batch_size=batch_size))
        bad = [index for index, result in enumerate(results) if isinstance(result, ImageError)]
        assert bad == [0, 4]
        assert "broken.jpg" in str(results[0]) and "none.jpg" in str(results[4])
        assert [result.text for result in results if isinstance(result, Caption)] == expected
    assert list(tiny_captioner.stream([])) == []
    with pytest.raises(ImageError, match=r"none\.jpg"):
        tiny_captioner.caption([*photograph_paths, tmp_path / "none.jpg"])


def test_a_stream_reads_at_most_two_batches_ahead_and_stops_when_left(
    tiny_captioner: ImageCaptioner, photograph: Image.Image
) -> None:
    read = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal read
        while True:
            read += 1
            yield photograph

    stream = tiny_captioner.stream(endless(), batch_size=3, beams=1)
    assert read == 0
    for taken in range(1, 8):
        assert isinstance(next(stream), Caption)
        assert read <= taken + 2 * 3
    stream.close()
    assert read <= 7 + 2 * 3


def test_a_single_picture_is_no_stream(tiny_captioner: ImageCaptioner, photograph_path: Path) -> None:
    for image in (photograph_path, str(photograph_path), photograph_path.read_bytes()):
        with pytest.raises(TypeError, match=r"for a single one use caption\(\)"):
            tiny_captioner.stream(image)  # type: ignore[arg-type]


# -- the bundled checkpoint --------------------------------------------------------------------------------------------


def test_the_bundled_checkpoint_is_small_licensed_and_says_what_was_measured() -> None:
    captioner = ImageCaptioner.from_pretrained()
    folder = bundled_checkpoint()
    assert set(contents(folder)) == {*FILES, "LICENSE"}
    assert (folder / "model.safetensors").stat().st_size <= 64 * 2**20
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.license_link) == ("other", "LICENSE")
    assert captioner.config.results is not None
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        name: pytest.approx(100 * value) for name, value in captioner.config.results.scores.items()
    }
