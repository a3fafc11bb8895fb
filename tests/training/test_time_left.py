"""The time left, and the recipe that is chosen, are as stated."""

from pathlib import Path

import pytest

from hf_captioner.training.checkpointing import Progress
from hf_captioner.training.default_recipe import MANY, default_recipe
from hf_captioner.training.recipe import RECIPES, Recipe, Stage
from hf_captioner.training.time_left import duration, time_left
from tests.documents import text_of

FROZEN = Stage(epochs=10, learning_rate=1e-3)
FINE = Stage(epochs=5, learning_rate=1e-3, unfreeze_from="layer2", encoder_learning_rate=4e-5, augment=True)


def after(epochs: int, stage: int = 0, *, stale: int = 0, seconds: float = 55.0) -> Progress:
    row = {"stage": stage, "seconds": seconds, "validation_seconds": 5.0}
    return Progress(stage=stage, epoch=epochs, epochs_without_improvement=stale, history=[row] * epochs)


def test_it_is_what_the_epochs_to_come_take_and_what_follows() -> None:
    assert time_left([FROZEN], after(3), 3, 0) == "at most about 7 minutes left"
    assert time_left([FROZEN], after(3), 3, 120) == "at most about 9 minutes left"
    assert time_left([FROZEN, FROZEN], after(3), 3, 0) == "at most about 17 minutes left"
    assert time_left([FROZEN, FINE], after(3), 3, 0) == "at most about 7 minutes left, and what stage 2 will take"


def test_a_stage_that_ends_early_takes_no_longer() -> None:
    assert time_left([FROZEN], after(3, stale=3), 3, 40) == "at most about 40 seconds left"
    assert time_left([FROZEN, FROZEN], after(3, stale=3), 3, 0) == "at most about 10 minutes left"


def test_it_is_told_in_the_unit_that_fits() -> None:
    assert [duration(seconds) for seconds in (0.2, 1, 40, 100, 3000, 9000)] == [
        *("1 second", "1 second", "40 seconds", "2 minutes", "50 minutes", "2.5 hours"),
    ]


def test_a_stage_is_told_in_words() -> None:
    assert str(FINE) == "5 epochs, decoder at 0.001, encoder from layer2 at 4e-05"
    assert str(Stage(epochs=1, learning_rate=2e-5, objective="self_critical")).startswith("1 epoch, decoder at 2e-05")


@pytest.mark.parametrize(
    ("images", "encoder", "gpu", "name"),
    [
        (1, "resnet50", False, "further_few.yaml"),
        (MANY - 1, "resnet50", True, "further_few.yaml"),
        (MANY, "resnet50", False, "further.yaml"),
        (MANY, "resnet50", True, "further_encoder.yaml"),
        (MANY, "vgg16", True, "further.yaml"),
        (5, None, False, "from_backbone.yaml"),
        (MANY, None, True, "from_backbone.yaml"),
    ],
)
def test_the_size_of_the_data_and_the_device_choose_the_recipe(
    images: int, encoder: str | None, gpu: bool, name: str
) -> None:
    file, why = default_recipe(images, encoder, gpu=gpu)
    assert file.name == name and name in why
    recipe = Recipe.read(file)
    assert bool(recipe.model) == (encoder is None), "a captioner that is trained further keeps its own model"
    assert any(stage.unfreeze_from for stage in recipe.stages) == (
        name in ("further_encoder.yaml", "from_backbone.yaml")
    )


def test_every_recipe_of_the_package_is_chosen_by_something_and_documented() -> None:
    page = text_of("docs/training.md")
    assert f"{MANY:,}" in page
    names = {path.name for path in RECIPES.glob("*.yaml")}
    assert names == {"further_few.yaml", "further.yaml", "further_encoder.yaml", "from_backbone.yaml"}
    assert all(f"[{Path(name).name}](../hf_captioner/training/recipes/{name})" in page for name in names)
