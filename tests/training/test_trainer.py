"""Training learns, keeps the best, and after being killed ends where it would have ended."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.config import ConfidenceConfig
from hf_captioner.hub.evaluation import Evaluation, Scores
from hf_captioner.modeling.confidence import Confidence
from tests import forked
from tests.conftest import generated, write_table

RECIPE = """
model:
  {encoder: resnet18, encoder_layer: layer2, image_size: 64, hidden_size: 24, backward_hidden_size: 12, dropout: 0.1}
generation: {num_beams: 2, max_length: 10}
min_count: 1
batch_size: 4
mixed_precision: 'no'
average: 0.5
patience: 9
stages:
  - {epochs: 2, learning_rate: 0.02, warmup: 2, captions: 2}
  - {epochs: 2, learning_rate: 0.005, warmup: 1, unfreeze_from: layer2, encoder_learning_rate: 0.001, augment: true}
  - {epochs: 1, learning_rate: 0.001, warmup: 1, objective: self_critical, samples: 3, xe_weight: 0.1}
"""


pytestmark = pytest.mark.usefixtures("only_training")

RANDOM = ("--backbone", "random")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_table(folder, ["train"] * 16 + ["validation"] * 4, kinds=4, each=2)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def arguments(data: Path, out: Path, recipe: Path | None = None, start: Sequence[str] = RANDOM) -> list[str]:
    chosen = ["--recipe", str(recipe or data / "recipe.yaml"), *start]
    return ["train", str(data / "captions.csv"), "--out", str(out), *chosen]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("run") / "out"
    done = forked.run("tests.training.training_only", *arguments(data, out))
    assert done.returncode == 0, done.stderr
    return out


def one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def history(out: Path) -> list[dict[str, float]]:
    with safe_open(out / "state.safetensors", framework="pt") as file:
        rows: list[dict[str, float]] = json.loads(file.metadata()["progress"])["history"]
        return rows


def test_the_loss_falls_and_the_run_leaves_what_it_promises(run: Path) -> None:
    rows = history(run)
    assert [(row["stage"], row["epoch"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]
    assert rows[3]["loss"] < 0.9 * rows[0]["loss"]
    assert (run / "curves.png").stat().st_size > 1000
    assert list((run / "tensorboard").iterdir())
    captioner = ImageCaptioner.from_pretrained(run / "best")
    assert captioner.generation_config.num_beams == 2
    assert captioner.caption(generated(0)).text


def test_killed_at_random_moments_it_ends_with_the_same_weights(data: Path, run: Path, tmp_path: Path) -> None:
    draw, kills, runs = random.Random(0), 0, 0

    def kill(child: int) -> None:
        time.sleep(draw.uniform(0.1, 1.5))
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.kill(child, signal.SIGKILL)

    while kills < 10:
        runs += 1
        out = tmp_path / str(runs)
        while True:
            done = forked.run("tests.training.every_step", *arguments(data, out), watch=kill if kills < 10 else None)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL, done.stderr
            kills += 1
        assert_same(out, run)


def assert_same(out: Path, run: Path) -> None:
    whole, loaded = load_file(run / "state.safetensors"), load_file(out / "state.safetensors")
    assert whole.keys() == loaded.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, loaded[name]), name
    assert [row["CIDEr"] for row in history(out)] == [row["CIDEr"] for row in history(run)]
    assert {path.name for path in (out / "best").iterdir()} == {path.name for path in (run / "best").iterdir()}
    ImageCaptioner.from_pretrained(out / "best")


def test_two_processes_learn_as_one_does(data: Path, tmp_path: Path) -> None:
    """The same global batch, so the same losses, but for the order of sums: within a thousandth."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("dropout: 0.1", "dropout: 0.0").split("  - {epochs: 1,")[0])
    one, two = (arguments(data, tmp_path / name, recipe) for name in ("one", "two"))
    assert forked.run("tests.training.training_only", *one).returncode == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = (
        f"--cpu --num_processes 2 --num_machines 1 --dynamo_backend no --mixed_precision no --main_process_port {port}"
    )
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *launch.split(),
        "-m",
        "hf_captioner",
        *two,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread(), timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The captioner lies in") == 1, "the main process alone does what follows the training"
    assert ImageCaptioner.from_pretrained(tmp_path / "two" / "best").evaluation.scores[0].images == 4
    losses = [[row["loss"] for row in history(tmp_path / name)] for name in ("one", "two")]
    assert len(losses[0]) == 4 and losses[1] == pytest.approx(losses[0], rel=1e-3)
    weights = [load_file(tmp_path / name / "best" / "model.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=2e-2, rtol=2e-2, msg=name)


def test_a_captioner_is_trained_further_with_its_own_words_and_licence(data: Path, run: Path, tmp_path: Path) -> None:
    old = ImageCaptioner.from_pretrained(run / "best")
    old.weights_license = "non-commercial\n"
    old.save_pretrained(tmp_path / "old")
    recipe = tmp_path / "recipe.yaml"
    settings = RECIPE.split("stages:")[0].replace("min_count: 1", "min_count: 2")  # one goat is not enough for a word
    recipe.write_text(settings + "stages: [{epochs: 1, learning_rate: 0.000001, warmup: 0}]\n")
    rows = ["path,caption,split"] + [
        f"{data / name}.png,a goat,{split}" for name, split in (("0", "train"), ("16", "validation"))
    ]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    start = ["--init", str(tmp_path / "old"), "--allow-outside-paths"]
    assert main(arguments(tmp_path, tmp_path / "out", recipe, start)) == 0
    new = ImageCaptioner.from_pretrained(tmp_path / "out" / "best")
    assert new.tokenizer.encode("dog goat") == old.tokenizer.encode("dog goat")
    assert new.weights_license == "non-commercial\n"
    for (name, was), now in zip(old.named_parameters(), new.parameters(), strict=True):
        torch.testing.assert_close(now, was, atol=1e-3, rtol=1e-2, msg=name)


def test_a_captioner_that_is_trained_further_stays_as_it_is_whatever_the_recipe_says(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe of the bundled checkpoint, shortened: it reads 224 pixels, has 480 units and another encoder."""
    recipe = yaml.safe_load((ROOT / "train" / "recipes" / "flickr8k.yaml").read_text())
    recipe |= {"stages": [{"epochs": 1, "learning_rate": 1e-4, "warmup": 0}], "mixed_precision": "no", "batch_size": 8}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.dump(recipe))
    assert main(arguments(data, tmp_path / "out", file, ["--init", str(run / "best")])) == 0
    error = capsys.readouterr().err
    assert "hidden_size stays 24 (recipe: 480)" in error and "encoder stays 'resnet18' (recipe: 'resnet50')" in error
    new, old = (ImageCaptioner.from_pretrained(folder / "best") for folder in (tmp_path / "out", run))
    assert new.config == dataclasses.replace(old.config, dropout=0.35) and new.generation_config.num_beams == 5


def test_a_module_that_the_captioner_lacks_ends_the_run_before_it_begins(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("unfreeze_from: layer2", "unfreeze_from: features"))
    assert main(arguments(data, tmp_path / "out", recipe)) == 2
    assert "resnet18 has no module 'features'" in capsys.readouterr().err
    assert not (tmp_path / "out" / "best").exists()


def test_without_a_recipe_a_captioner_is_trained_further(data: Path, run: Path, tmp_path: Path) -> None:
    old = ImageCaptioner.from_pretrained(run / "best")
    old.generation_config = dataclasses.replace(old.generation_config, num_beams=4)
    old.save_pretrained(tmp_path / "old")
    flags = ["--out", str(tmp_path / "out"), "--init", str(tmp_path / "old"), "--device", "cpu", "--dataset", "Blocks"]
    flags += ["--language", "de"]
    done = forked.run("tests.training.training_only", "train", data / "captions.csv", *flags)
    assert done.returncode == 0, done.stderr
    assert "stage 1 epoch 1: loss" in done.stderr and "CIDEr" in done.stderr
    assert "stage 1 of 1: 8 epochs, decoder at 3e-05, new words at 0.01, encoder frozen" in done.stderr
    assert "left\n" in done.stderr.replace("\r", "\n") and "at most about" in done.stderr
    new = ImageCaptioner.from_pretrained(tmp_path / "out" / "best")
    assert new.config == old.config and new.generation_config.num_beams == 4
    assert new.evaluation.initialized_from == "another captioner", "a card does not name a folder of this machine"
    assert [given.name for given in new.evaluation.trained_on][-1] == "Blocks"
    assert new.evaluation.trained_on[-1].images == 16
    flags[1:4] = [str(tmp_path / "again"), "--init", str(tmp_path / "out" / "best")]
    assert forked.run("tests.training.training_only", "train", data / "captions.csv", *flags).returncode == 0
    again = ImageCaptioner.from_pretrained(tmp_path / "again" / "best").evaluation
    assert again.trained_on == new.evaluation.trained_on, "what it goes on with is listed once"
    assert ModelCard.load(tmp_path / "out" / "best" / "README.md").data.language == new.evaluation.language == "de"


def test_a_finished_run_is_not_run_again_and_another_recipe_is_refused(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, began = (run / "state.safetensors").stat().st_mtime_ns, time.perf_counter()
    assert main(arguments(data, run)) == 0
    assert (run / "state.safetensors").stat().st_mtime_ns == before
    assert time.perf_counter() - began < 20
    other = tmp_path / "other.yaml"
    other.write_text(RECIPE.replace("seed: 1", "") + "seed: 2\n")
    assert main(arguments(data, run, other)) == 2
    assert "was saved by another run (with another recipe); give another --out" in capsys.readouterr().err


def saved(captioner: ImageCaptioner, folder: Path) -> str:
    captioner.save_pretrained(folder)
    return str(folder)


def test_a_run_that_starts_from_other_weights_is_refused(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE.split("stages:")[0] + "stages: [{epochs: 1, learning_rate: 0.001, warmup: 0}]\n")
    torch.manual_seed(0)
    for name in ("one", "two"):
        save_file(resnet18().state_dict(), tmp_path / f"{name}.safetensors")
    one, two = (["--backbone", str(tmp_path / f"{name}.safetensors")] for name in ("one", "two"))
    assert main(arguments(data, out, recipe, one)) == 0
    shutil.copy(tmp_path / "one.safetensors", tmp_path / "copy.safetensors")
    assert main(arguments(data, out, recipe, ["--backbone", str(tmp_path / "copy.safetensors")])) == 0
    capsys.readouterr()
    for other in (two, RANDOM, ["--init", str(run / "best")]):
        assert main(arguments(data, out, recipe, other)) == 2
        error = capsys.readouterr().err
        assert "was saved by another run (with another" in error and "initialization" in error
        assert error.count("\n") == 1


def test_what_is_measured_of_the_first_captioner_does_not_stop_its_training(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = ImageCaptioner.from_pretrained(run / "best")
    start = ["--init", saved(old, tmp_path / "old")]
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("mixed_precision: 'no'\nstages: [{epochs: 1, learning_rate: 0.001, warmup: 0}]\n")
    assert main(arguments(data, out, recipe, start)) == 0
    fitted = ConfidenceConfig(intercept=0.0, slope=1.0, ood_threshold=1.0, ood_temperature=1.0)
    old.config = dataclasses.replace(old.config, confidence=fitted)
    old.confidence = Confidence(fitted, old.config.hidden_size)
    old.evaluation = Evaluation(scores=(Scores("birds", "validation", {"CIDEr": 0.5}, "PTB", "a command"),))
    saved(old, tmp_path / "old")
    assert main(arguments(data, out, recipe, start)) == 0
    with torch.no_grad():
        next(old.decoder.parameters()).add_(0.5)
    saved(old, tmp_path / "old")
    capsys.readouterr()
    assert main(arguments(data, out, recipe, start)) == 2
    assert "with another initialization" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--backbone", "random", "--device", "abacus"], "device is 'abacus'; training expects auto, cpu or cuda"),
        (["--backbone", "./gone.safetensors"], "Backbone weights ./gone.safetensors"),
        (["another", "--backbone", "random", "--dataset", "one"], "--dataset has 1 for 2 data sets"),
    ],
)
def test_flags_that_make_no_sense_are_one_sentence(
    data: Path, tmp_path: Path, flags: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = flags[:1] if not flags[0].startswith("-") else []
    rest = flags[len(places) :]
    recipe = ["--recipe", str(data / "recipe.yaml"), "--out", str(tmp_path / "out")]
    assert main(["train", str(data / "captions.csv"), *places, *recipe, *rest]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_the_leftovers_of_a_killed_process_are_removed(data: Path, run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run, tmp_path / "out"))
    (out / ".state.safetensors.0.tmp").write_bytes(b"half")
    (out / "best" / ".saving-0").mkdir()
    assert main(arguments(data, out)) == 0
    assert not list(out.rglob(".*"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("patience: 0", "Recipe.patience is 0; expected at least 1"),
        ("patienze: 3", "unexpected keyword argument 'patienze'"),
        ("patience: [", "while parsing"),
        ("patience: lots", "Recipe.patience is 'lots'; expected int"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    data: Path, tmp_path: Path, change: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("patience: 9", change))
    assert main(arguments(data, tmp_path / "out", recipe)) == 2
    assert complaint in capsys.readouterr().err
