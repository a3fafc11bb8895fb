"""A captioner that is trained further learns the words of its new captions, and keeps those that it had."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.errors import TokenizerError
from hf_captioner.modeling import tokenizer as tokenizer_module
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from hf_captioner.training.optimization import build_optimizer
from hf_captioner.training.recipe import Stage
from hf_captioner.training.vocabulary import RARER, grow, grown_weights
from tests import forked
from tests.conftest import generated

KNOWN = ["a", "cat", "dog", "sits", "runs", "red"]


@pytest.fixture
def old() -> CaptionTokenizer:
    return CaptionTokenizer(["<pad>", "<start>", "<end>", "<unk>", *KNOWN])


def words(tokenizer: CaptionTokenizer) -> list[str]:
    return [tokenizer.word(index) for index in range(4, len(tokenizer))]


def test_frequent_words_are_appended_and_the_old_keep_their_places(old: CaptionTokenizer) -> None:
    captions = ["A zebra runs.", "Two zebras, a cat", "a ZEBRA ❤️", "gnu gnu ❤️", "A gnu, ❤️ 5 5 5", "emu-emu emu"]
    grown, new = grow(old, [*captions, "x" * 101, "x" * 101, "x" * 101], min_count=2)
    assert words(grown) == [*KNOWN, "emu", "gnu", "zebra"], "most frequent first, then by alphabet; no sign is a word"
    assert dict(new.counts) == {"emu": 3, "gnu": 3, "zebra": 2}
    said = "added 3 words that the training captions hold at least 2 times (the rarest 2 times): "
    assert str(new) == said + "emu (3), gnu (3), zebra (2)"
    same, none = grow(grown, captions, min_count=2)
    assert words(same) == words(grown) and not none.counts


def test_a_vocabulary_grows_to_its_limit_and_no_further(old: CaptionTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "MAX_WORDS", 12)
    assert len(grow(old, ["gnu emu"], min_count=1)[0]) == 12
    with pytest.raises(TokenizerError, match="has 13 words; expected at most 12"):
        grow(old, ["gnu emu yak"], min_count=1)


def weights(is_tied: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    embedding = torch.randn(10, 3)
    output = embedding if is_tied else torch.randn(10, 3)
    return {
        "embedding.weight": embedding,
        "output.weight": output,
        "output.bias": torch.randn(10),
        "gate": torch.ones(2),
    }


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_new_word_begins_as_the_mean_of_the_words_that_stand_in_its_place(
    old: CaptionTokenizer, is_tied: bool
) -> None:
    captions = ["a cat sits", "a dog sits", "a dog sits", "a gnu sits", "red gnu runs", "red cat", "emu emu"]
    grown, _ = grow(old, captions, min_count=2)
    before = weights(is_tied)
    after = grown_weights(before, grown, captions)
    gnu, emu = (grown.encode(word)[0] for word in ("gnu", "emu"))
    a, cat, dog = (old.encode(word)[0] for word in ("a", "cat", "dog"))
    for name in ("embedding.weight", "output.weight", "output.bias"):
        old_rows, lower = before[name], RARER * (name == "output.bias")
        assert torch.equal(after[name][:10], old_rows)
        between_a_and_sits, after_red = (old_rows[cat] + 2 * old_rows[dog]) / 3, old_rows[cat]
        torch.testing.assert_close(after[name][gnu], (between_a_and_sits + after_red) / 2 - lower)
        red = old.encode("red")[0]
        at_the_start, before_the_end = (
            (4 * old_rows[a] + 2 * old_rows[red]) / 6,
            (4 * old_rows[old.encode("sits")[0]] + old_rows[old.encode("runs")[0]] + old_rows[cat]) / 6,
        )
        torch.testing.assert_close(after[name][emu], (at_the_start + before_the_end) / 2 - lower)
    assert torch.equal(after["gate"], before["gate"]) and after.keys() == before.keys()


def test_words_of_another_language_begin_as_the_mean_of_all_words(old: CaptionTokenizer) -> None:
    captions = ["ein hund", "ein hund"]
    grown, _ = grow(old, captions, min_count=2)
    after = grown_weights(weights(is_tied=True), grown, captions)["output.weight"]
    torch.testing.assert_close(after[10:], after[4:10].mean(0).expand(2, 3))


pytestmark = pytest.mark.usefixtures("only_training")

RECIPE = """
mixed_precision: 'no'
min_count: 2
batch_size: 4
stages: [{epochs: 1, learning_rate: 0.001, new_words_learning_rate: 0.01, warmup: 0, captions: 1}]
"""
GERMAN = ["Ein Hund rennt", "Ein Hund springt", "Ein Hund rennt schnell", "Ein Kind springt", "Ein Hund"]


def command(folder: Path, checkpoint: Path, captions: Sequence[str]) -> list[str]:
    """`hf-captioner train` of the checkpoint further on these captions; the last is for validation."""
    rows = []
    for index, caption in enumerate(captions):
        generated(index).save(folder / f"{index}.png")
        split = "train" if index < len(captions) - 1 else "validation"
        rows.append(json.dumps({"file_name": f"{index}.png", "text": caption, "split": split}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    (folder / "recipe.yaml").write_text(RECIPE)
    flags = ["--recipe", str(folder / "recipe.yaml"), "--init", str(checkpoint)]
    return ["train", str(folder), "--out", str(folder / "out"), *flags]


def test_training_further_adds_the_words_and_goes_on_with_them_after_a_stop(
    checkpoint: Path, saved_captioner: ImageCaptioner, tmp_path: Path
) -> None:
    given = command(tmp_path, checkpoint, ["A brown goat runs.", "A goat", "A quagga", "A dog jumps", "A black goat"])
    first = forked.run("tests.training.training_only", *given)
    assert (
        "added 1 word that the training captions hold at least 2 times (the rarest 2 times): goat (2)" in first.stderr
    )
    assert "training captions: 1 of 11 words (9.1 %) are not among" in first.stderr, "quagga occurs once"
    assert first.returncode == 0 and "validation captions:" not in first.stderr, first.stderr
    best = ImageCaptioner.from_pretrained(tmp_path / "out" / "best")
    old = saved_captioner.tokenizer
    assert words(best.tokenizer) == [*words(old), "goat"] and best.config.vocabulary_size == len(old) + 1
    assert best.caption(generated(0), prefix="a goat").text.startswith("a goat")
    state = tmp_path / "out" / "state.safetensors"
    saved = state.stat().st_mtime_ns
    assert forked.run("tests.training.training_only", *given).returncode == 0 and state.stat().st_mtime_ns == saved
    (tmp_path / "out" / "best").rename(tmp_path / "grown")
    further = [*given[:-1], str(tmp_path / "grown"), "--out", str(tmp_path / "again")]
    again = forked.run("tests.training.training_only", *further)
    assert again.returncode == 0 and "added" not in again.stderr, again.stderr


def test_captions_in_another_language_give_a_captioner_with_their_words(
    checkpoint: Path, saved_captioner: ImageCaptioner, tmp_path: Path
) -> None:
    assert main(command(tmp_path, checkpoint, GERMAN)) == 0
    best = ImageCaptioner.from_pretrained(tmp_path / "out" / "best")
    assert words(best.tokenizer) == [*words(saved_captioner.tokenizer), "ein", "hund", "rennt", "springt"]
    assert {*best.caption(generated(0), max_length=4).text.split()} <= {*words(best.tokenizer)}


def test_more_new_words_than_a_vocabulary_holds_are_one_clear_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = command(tmp_path, checkpoint, GERMAN)
    monkeypatch.setattr(tokenizer_module, "MAX_WORDS", 30)
    assert main(given) == 1
    (line,) = [part for part in capsys.readouterr().err.split("\n") if part.strip()]
    assert "words; expected at most 30. Give a recipe with a larger min_count." in line


def test_words_of_another_language_that_are_all_rare_are_one_clear_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, checkpoint, ["Ein Hund", "Zwei Katzen", "Drei Kinder"])) == 1
    (line,) = [part for part in capsys.readouterr().err.split("\n") if part.strip()]
    assert "Not one word of the validation captions is among the" in line and "`min_count` of the recipe" in line


def a_step(captioner: ImageCaptioner, new_words_learning_rate: float) -> None:
    """A step of the decoder against a gradient of ones, its last two words new."""
    stage = Stage(epochs=1, learning_rate=1e-3, new_words_learning_rate=new_words_learning_rate)
    optimizer = build_optimizer(captioner, stage, weight_decay=0.0, new_words=2)
    for parameter in captioner.decoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def test_new_words_learn_faster_and_the_others_at_their_own_rate(tiny_captioner: ImageCaptioner) -> None:
    decoder = tiny_captioner.decoder
    decoder.embedding.weight.data[:-2] += 10
    old = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    a_step(tiny_captioner, 1e-1)
    for name, parameter in decoder.named_parameters():
        moved = old[name] - parameter.detach()
        faster = 2 if name in ("embedding.weight", "output.bias") else 0
        rest = moved[: len(moved) - faster]
        torch.testing.assert_close(rest, torch.full_like(rest, 1e-3), rtol=1e-2, atol=1e-6)
        torch.testing.assert_close(moved[len(rest) :], torch.full_like(moved[len(rest) :], 1e-1), rtol=1e-2, atol=1e-6)


def test_new_words_never_outgrow_the_known_ones(tiny_captioner: ImageCaptioner) -> None:
    a_step(tiny_captioner, 100.0)
    lengths = tiny_captioner.decoder.embedding.weight.detach().norm(dim=1)
    assert lengths[-2:].tolist() == pytest.approx([float(lengths[:-2].mean())] * 2, rel=1e-4)
