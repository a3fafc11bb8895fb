"""The comparison trains what its plan says, each row once, and its table says what was not measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from hf_captioner.modeling.encoder import Encoder
from hf_captioner.training import metrics
from hf_captioner.training.data import Record
from hf_captioner.training.recipe import Recipe
from hf_captioner.training.trainer import Trainer
from tests.conftest import write_table
from train.ablation import main, read_rows

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "train" / "recipes"
PLAN = """
seeds: [1, 2]
base:
  model:
    {encoder: resnet18, encoder_layer: layer1, image_size: 32, decoder: bilstm, hidden_size: 8, backward_hidden_size: 4}
  generation: {num_beams: 3, max_length: 6}
  min_count: 1
  batch_size: 4
  mixed_precision: 'no'
  stages: [{epochs: 1, learning_rate: 0.01, warmup: 0, captions: 1}]
rows:
  - name: "baseline"
  - name: "LSTM"
    change: {model: {decoder: lstm}}
  - name: "further"
    init: "baseline"
    change: {stages: [{epochs: 1, learning_rate: 0.001, warmup: 0, captions: 1}]}
  - name: "VGG-16"
    change: {model: {encoder: vgg16, encoder_layer: features.4}}
"""


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    table = write_table(tmp_path, ["train"] * 4 + ["validation"] * 4, kinds=4)
    (tmp_path / "plan.yaml").write_text(PLAN)
    return f"--plan {tmp_path}/plan.yaml --data {table} --out {tmp_path} --weights {tmp_path}".split()


def test_every_row_is_measured_once_and_named(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    save_file(resnet18().state_dict(), tmp_path / "resnet18.safetensors")
    monkeypatch.setattr(metrics, "has_java", lambda: False)  # METEOR takes ten seconds a row, and is tested elsewhere
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing answers there
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert main([*flags, "--seeds", "1", "--rows", "further"]) == 0
    assert "| further | not measured: needs the row that it starts from |" in capsys.readouterr().out
    assert main([*flags, "--rows", "baseline"]) == 0
    assert "| LSTM | not measured yet |" in capsys.readouterr().out
    assert main([*flags, "--seeds", "1"]) == 0
    printed = capsys.readouterr().out
    baseline, lstm, further, vgg = printed.splitlines()[-4:]
    assert baseline.startswith("| baseline | ") and baseline.endswith("| 2 |") and "±" in baseline
    assert lstm.startswith("| LSTM | ") and further.startswith("| further | ")
    assert vgg.startswith("| VGG-16 | not measured")
    results = json.loads((tmp_path / "ablation.json").read_text())["results"]
    found = [(result["row"], result["seed"]) for result in results]
    assert found == [("baseline", 1), ("baseline", 2), ("LSTM", 1), ("further", 1)]
    (scores,) = results[0]["data_sets"].values()
    assert set(scores) == {"1", "3", "5"}
    assert results[0]["parameters"] > results[2]["parameters"]
    assert (tmp_path / "ablation.png").stat().st_size > 1000
    assert not list(tmp_path.glob("*/state.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert main([*flags, "--seeds", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == before
    capsys.readouterr()
    assert main([*flags, "--time", "--rows", "LSTM"]) == 0
    assert main([*flags, "--time", "--rows", "baseline", "further"]) == 0
    times = json.loads((tmp_path / "ablation.json").read_text())["times"]
    assert set(times) == {"baseline", "LSTM", "further"}
    assert all(time["minutes"] > 0 and time["milliseconds"] > 0 for time in times.values())
    assert "| 1 |\n" in capsys.readouterr().out


def test_a_row_is_trained_on_the_data_sets_that_it_names_and_scored_on_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "has_java", lambda: False)
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "test_resnet.safetensors")
    for name in ("dogs", "cats"):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name, ["train"] * 4 + ["validation"] * 4, kinds=4)
    base = PLAN.partition("rows:")[0].replace("resnet18, encoder_layer: layer1", "'timm:test_resnet'")
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        base + "rows: [{name: alone, data: {dogs: 1}}, {name: both, data: {dogs: 1, cats: 2}}, {name: all of them}]"
    )
    trained: list[dict[str, float]] = []
    once = Trainer.__init__

    def remember(self: Trainer, recipe: Recipe, records: list[Record], *rest: Any, **options: Any) -> None:
        trained.append({record.data_set: record.weight for record in records})
        once(self, recipe, records, *rest, **options)

    monkeypatch.setattr(Trainer, "__init__", remember)
    flags = ["--plan", str(plan), "--out", str(tmp_path / "out"), "--weights", str(tmp_path), "--seeds", "1"]
    data = ["--data", str(tmp_path / "dogs"), str(tmp_path / "cats")]
    assert main([*flags, *data]) == 0
    assert trained == [{"dogs": 1.0}, {"dogs": 1.0, "cats": 2.0}, {"dogs": 1.0, "cats": 1.0}]
    lines = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert lines == [f"| {row}; on {name}" for row in ("alone", "both", "all of them") for name in ("dogs", "cats")]
    alone = json.loads((tmp_path / "out" / "alone-1" / "result.json").read_text())
    assert set(alone["data_sets"]) == {"dogs", "cats"} and alone["data"] == {"dogs": 1}
    plan.write_text(base + "rows: [{name: alone, data: {dogs: 1, cats: 1}}]")
    assert main([*flags, *data]) == 2
    assert "was measured with another recipe or data; delete" in capsys.readouterr().err
    assert main([*flags, *data, "--out", str(tmp_path / "other"), "--dataset", "hounds", "cats"]) == 2
    assert "'alone' is trained on dogs; found hounds, cats. Give each" in capsys.readouterr().err


@pytest.mark.parametrize("plan", ["ablation", "data_sets"])
def test_the_results_are_those_of_the_plan(plan: str) -> None:
    rows, seeds = read_rows(RECIPES / f"{plan}.yaml")
    found = json.loads((RECIPES / f"{plan}.json").read_text(encoding="utf-8"))
    plain = {row.name: row.recipe for row in rows}
    for result in found["results"]:
        assert result["recipe"] == {**plain[result["row"]], "seed": result["seed"]}
    for row in rows:
        measured = sorted(result["seed"] for result in found["results"] if result["row"] == row.name)
        assert measured == seeds or row.name in found["not measured"], row.name


@pytest.mark.parametrize("plan", ["ablation.yaml", "data_sets.yaml", "regularisation.yaml"])
def test_the_plans_of_the_repository_are_sound(plan: str) -> None:
    rows, seeds = read_rows(RECIPES / plan)
    names = [row.name for row in rows]
    assert len(seeds) >= 3 and len(set(names)) == len(names)
    for row in rows:
        recipe = Recipe.from_plain({**row.recipe, "seed": 1}, row.name)
        assert row.init is None or row.init in names[: names.index(row.name)]
        with torch.device("meta"):
            assert Encoder(recipe.captioner_config(100)).channels >= 512


def test_the_plan_of_the_data_sets_compares_one_recipe_on_one_set_and_on_both() -> None:
    rows, _ = read_rows(RECIPES / "data_sets.yaml")
    alone, both = rows
    lstm = next(row for row in read_rows(RECIPES / "ablation.yaml")[0] if row.name.startswith("LSTM for"))
    del lstm.recipe["model"]["backward_hidden_size"]  # which an LSTM does not read
    assert alone.recipe == both.recipe == lstm.recipe
    assert (alone.data, both.data) == ({"Flickr8k": 1}, {"Flickr8k": 1, "general": 2})


def test_both_plans_begin_with_the_same_baseline() -> None:
    """So that they share its measurements where they share a folder."""
    first, second = (read_rows(RECIPES / plan)[0][0] for plan in ("ablation.yaml", "regularisation.yaml"))
    assert first == second
