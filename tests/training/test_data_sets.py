"""Several data sets in one run: each with its weight and name, scored apart, and their mean decides."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.errors import DataError
from hf_captioner.training.curves import draw_curves
from hf_captioner.training.data_sets import DataSet, given_data_sets, load_data_sets, load_split
from hf_captioner.training.dataset import EpochOrder
from hf_captioner.training.recipe import Recipe
from hf_captioner.training.rewards import CiderD, cider_of_data_sets
from tests.training.conftest import data_set

pytestmark = pytest.mark.usefixtures("only_training", "no_java")

RECIPE = """
model: {encoder: resnet18, encoder_layer: layer2, image_size: 64, hidden_size: 16, backward_hidden_size: 8}
generation: {num_beams: 2, max_length: 10}
min_count: 1
batch_size: 4
mixed_precision: 'no'
stages:
  - {epochs: 2, learning_rate: 0.02, warmup: 1, captions: 2}
  - {epochs: 1, learning_rate: 0.001, warmup: 1, objective: self_critical, samples: 2}
"""


def train(out: Path, *arguments: str | Path, recipe: str = RECIPE) -> int:
    file = out.with_suffix(".yaml")
    file.write_text(recipe)
    return main(["train", *map(str, arguments), "--out", str(out), "--recipe", str(file), "--backbone", "random"])


def history(out: Path) -> list[dict[str, Any]]:
    with safe_open(out / "state.safetensors", framework="pt") as file:
        rows: list[dict[str, Any]] = json.loads(file.metadata()["progress"])["history"]
        return rows


@pytest.fixture(scope="module")
def run(
    only_training: None, no_java: None, blocks: Path, stripes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Trained on both under names."""
    out = tmp_path_factory.mktemp("run") / "out"
    names = ["--dataset", "Blocks", "Small stripes", "--weights", "1", "2.5"]
    assert train(out, blocks, stripes, *names) == 0
    return out


# -- training ----------------------------------------------------------------------------------------------------------


def test_each_data_set_is_scored_apart_and_the_mean_decides(run: Path) -> None:
    rows = history(run)
    assert len(rows) == 3
    for row in rows:
        for metric in ("CIDEr", "BLEU-1"):
            apart = [row[f"{name} {metric}"] for name in ("Blocks", "Small stripes")]
            assert row[metric] == pytest.approx(sum(apart) / 2) and apart[0] != apart[1]
    with safe_open(run / "state.safetensors", framework="pt") as file:
        best = json.loads(file.metadata()["progress"])["best_cider"]
    assert best == max(row["CIDEr"] for row in rows)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    told = [event.value for event in events.Scalars("validation/Small stripes CIDEr")]
    assert told == pytest.approx([row["Small stripes CIDEr"] for row in rows])


def test_the_card_names_every_data_set_with_what_it_brought(run: Path) -> None:
    found = ImageCaptioner.from_pretrained(run / "best").evaluation.trained_on
    assert [(one.name, one.images, one.captions) for one in found] == [("Blocks", 8, 24), ("Small stripes", 4, 4)]
    card = (run / "best" / "README.md").read_text()
    assert "- **Blocks**: 8 images with 24 captions." in card
    assert "- **Small stripes**: 4 images with 4 captions." in card


def test_the_log_tells_them_apart_by_folder_and_the_card_tells_no_folder(
    blocks: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = RECIPE.split("stages:")[0] + "stages: [{epochs: 1, learning_rate: 0.01, warmup: 0}]\n"
    assert train(tmp_path / "out", blocks, stripes, recipe=once) == 0
    error = capsys.readouterr().err
    assert "photos: 8 images to train on, 4 to validate, 0 left for a test; weight 1, so shown 8 times" in error
    assert "photos (2): 4 images to train on, " in error and "weight 1, so shown 4 times an epoch" in error
    (line,) = [line for line in error.splitlines() if "epoch 1: loss" in line]
    mean, first, second = line.split(", ", 1)[1].split("; ")
    assert mean.startswith("mean BLEU-1 ") and first.startswith("photos BLEU") and second.startswith("photos (2) BLEU")
    for name in ("README.md", "evaluation.json"):
        assert "photos" not in (tmp_path / "out" / "best" / name).read_text()


def test_a_data_set_without_validation_images_is_trained_on_and_not_scored(blocks: Path, tmp_path: Path) -> None:
    more = data_set(tmp_path / "more", ["train"] * 4)
    once = RECIPE.split("stages:")[0] + "stages: [{epochs: 1, learning_rate: 0.01, warmup: 0}]\n"
    assert train(tmp_path / "out", blocks, more, recipe=once) == 0
    assert not [name for name in history(tmp_path / "out")[0] if name.startswith(("more", "photos"))]
    found = ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation.trained_on
    assert [one.images for one in found] == [8, 4]


def test_a_run_goes_on_under_another_name_but_not_with_another_weight(
    blocks: Path, stripes: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(run, tmp_path / "out"))
    assert train(out, blocks, stripes, "--dataset", "Cubes", "Lines", "--weights", "1", "2.5") == 0
    capsys.readouterr()
    assert train(out, blocks, stripes, "--weights", "1", "3") == 2
    assert "was saved by another run (with another data set)" in capsys.readouterr().err
    renamed = [{"stage": 0, "loss": 1.0, **dict.fromkeys(("CIDEr", "ROUGE-L", "BLEU-4", name), 0.5)} for name in "ab"]
    draw_curves([{**row, f"{name} CIDEr": 0.4} for name, row in zip("ab", renamed, strict=True)], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000


# -- weights -----------------------------------------------------------------------------------------------------------


def test_an_epoch_shows_an_image_as_often_as_its_weight_says() -> None:
    weights = [1.0] * 6 + [2.5] * 4 + [0.5] * 8
    order = EpochOrder(weights, 4, seed=1)
    shown: Counter[int] = Counter()
    for epoch in range(40):
        order.epoch = epoch
        keys = [key for batch in order for key in batch]
        assert len(keys) == len(set(keys)) == len(order) * 4 == order.samples == 20, "no copy twice"
        times = Counter(index for _, index, _ in keys)
        assert [times[index] for index in range(6)] == [1] * 6
        assert {times[index] for index in range(6, 10)} == {2, 3}
        assert sum(times[index] for index in range(10, 18)) == 4
        shown.update(times)
    for index, weight in enumerate(weights):
        assert shown[index] / 40 == pytest.approx(weight, abs=0.25)


def test_processes_share_what_one_process_sees_and_a_stopped_epoch_goes_on() -> None:
    weights = [1.0] * 7 + [1.5] * 6
    whole = [set(batch) for batch in EpochOrder(weights, 4, seed=3)]
    halves = zip(*(EpochOrder(weights, 4, 3, process, 2) for process in (0, 1)), strict=True)
    assert [set(one) | set(two) for one, two in halves] == whole
    rest = EpochOrder(weights, 4, seed=3)
    rest.first = 2
    assert [set(batch) for batch in rest] == whole[2:]


def test_the_reward_counts_words_in_the_images_own_data_set() -> None:
    first, second = [[[4, 5, 6]], [[4, 5, 7]]], [[[4, 8, 9]], [[5, 8, 9]], [[6, 7, 9]]]
    reward = cider_of_data_sets([first[0], second[0], first[1], second[1], second[2]], ["a", "b", "a", "b", "b"])
    assert reward(2, [4, 5, 7]) == CiderD(first)(1, [4, 5, 7])
    assert reward(4, [6, 8, 9]) == CiderD(second)(2, [6, 8, 9]) != CiderD([*first, *second])(4, [6, 8, 9])


# -- what is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["a", "b", "--weights", "1"], "--weights has 1 for 2 data sets (a, b); give one for each"),
        (["a", "--weights", "1", "2"], "--weights has 2 for 1 data set (a)"),
        (["a", "b", "--dataset", "A", "B", "C"], "--dataset has 3 for 2 data sets (a, b)"),
        (["a", "b", "--weights", "1", "0"], "The weight of b is 0; expected a number above 0"),
        (["a", "b", "--weights", "-2", "1"], "The weight of a is -2; expected"),
        (["a", "--weights", "nan"], "DataSet.weight is nan; expected"),
        ([], "Training needs data; name it before --dataset and --weights"),
        (["--dataset", "A", "photos"], "Training needs data; name it before"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    flags: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "out", *flags) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_weights_that_show_nothing_are_one_sentence(
    blocks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "out", blocks, "--weights", "0.01") == 2
    assert "With the weights 0.01 an epoch shows none of the 8 training images; raise them" in capsys.readouterr().err


def test_a_recipe_may_name_the_data_relative_to_itself(
    blocks: Path, stripes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(blocks, tmp_path / "mine")
    data = f"data: [{{source: mine, name: Mine}}, {{source: {stripes}, weight: 2}}]\n"
    once = data + RECIPE.split("stages:")[0] + "stages: [{epochs: 1, learning_rate: 0.01, warmup: 0}]\n"
    assert train(tmp_path / "out", recipe=once) == 0
    found = ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation.trained_on
    assert [(one.name, one.images) for one in found] == [("Mine", 8), ("an unnamed data set", 4)]
    capsys.readouterr()
    assert train(tmp_path / "out", tmp_path / "mine", stripes, "--weights", "1", "2", recipe=once) == 2
    assert "The data is given twice, on the command line and as data in the recipe" in capsys.readouterr().err
    assert train(tmp_path / "out", "--weights", "1", "2", recipe=once) == 2
    assert "The recipe names the data, so it says each name and weight too" in capsys.readouterr().err
    bare = once.removeprefix(data)
    assert train(tmp_path / "out", tmp_path / "mine", stripes, "--weights", "1", "2", recipe=bare) == 0, "the same run"


def test_a_hub_id_in_a_recipe_is_no_path(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: [{source: hf://datasets/me/birds}, {source: me/birds}]\n" + RECIPE)
    remote, local = Recipe.read(recipe).data
    assert (remote.source, remote.card_name) == ("hf://datasets/me/birds", "me/birds")
    assert (local.source, local.label) == (str(tmp_path / "me" / "birds"), "birds")
    assert local.card_name == "an unnamed data set"


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("photos", "data is 'photos'; expected a list of mappings"),
        ("[photos]", "expected a list of mappings"),
        ("[{source: a, wieght: 2}]", "DataSet has no 'wieght'; it has the keys source, weight, name"),
        ("[{weight: 2}]", "DataSet lacks source"),
        ("[{source: a, weight: heavy}]", "DataSet.weight is 'heavy'; expected"),
        ("[{source: a, weight: -1}]", "The weight of a is -1; expected a number above 0"),
    ],
)
def test_data_of_a_recipe_that_makes_no_sense_is_one_sentence(
    data: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path / "out", recipe=f"data: {data}\n{RECIPE}") == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_no_two_data_sets_have_one_name(blocks: Path, stripes: Path) -> None:
    records = load_data_sets(given_data_sets([str(blocks), str(stripes), str(blocks)], ["Birds"] * 3))
    assert list(Counter(record.data_set for record in records)) == ["Birds", "Birds (2)", "Birds (3)"]
    records = load_data_sets(given_data_sets([str(blocks / "captions.csv"), str(stripes)], None))
    assert {record.card_name for record in records} == {"an unnamed data set", "an unnamed data set (2)"}
    assert list(Counter(record.data_set for record in records)) == ["photos", "photos (2)"], "not captions.csv"


# -- splits ------------------------------------------------------------------------------------------------------------


def unsplit(folder: Path, images: int) -> DataSet:
    data_set(folder, ["train"] * images)
    table = folder / "captions.csv"
    table.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()))
    return DataSet(str(folder))


def test_drawn_splits_are_kept_for_each_data_set_in_whatever_order_it_is_read(tmp_path: Path) -> None:
    one, two = unsplit(tmp_path / "one", 20), unsplit(tmp_path / "two", 30)
    named, kept = DataSet(str(data_set(tmp_path / "named", ["train", "validation"]))), tmp_path / "run" / "splits.json"
    load_data_sets([one, named, two], split_file=kept, seed=1)
    before = kept.read_bytes()

    def validation(*data_sets: DataSet) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for record in load_split(data_sets, "validation", model=str(kept.parent / "best")):
            found.setdefault(record.data_set, set()).add(record.path.name)
        return found

    both = validation(one, two)
    assert {name: len(images) for name, images in both.items()} == {"one": 2, "two": 3}
    assert validation(two, one, named) == both | {"named": {"1.png"}}
    assert validation(two) == {"two": both["two"]} and validation(one) == {"one": both["one"]}
    load_data_sets([two, one], split_file=kept, seed=99)
    assert kept.read_bytes() == before
    three = unsplit(tmp_path / "three", 12)
    with pytest.raises(DataError, match="splits 20 and 30 images, the data has 12 and not the same; delete it"):
        load_data_sets([one, two, three], split_file=kept, seed=1)
    assert kept.read_bytes() == before, "no image of an old run's validation is trained on by a new draw"


def test_splits_of_one_data_set_are_a_plain_mapping_as_ever(tmp_path: Path) -> None:
    one, kept = unsplit(tmp_path / "one", 20), tmp_path / "splits.json"
    load_data_sets([one], split_file=kept, seed=1)
    assert Counter(json.loads(kept.read_text()).values()) == {"train": 16, "validation": 2, "test": 2}
    for text in ("5", "[]", "[3]"):
        kept.write_text(text)
        with pytest.raises(DataError, match="holds no splits; expected a training run's"):
            load_split([one], "validation", split_file=kept)
