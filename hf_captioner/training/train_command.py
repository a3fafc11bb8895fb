"""Train a captioner: `hf-captioner train DATA --out DIR [--recipe FILE] [--backbone FILE | --init ID]`.

Started again with the same arguments after any interruption, it resumes and ends with the same weights.
Under `accelerate launch` the same command trains on several processes or machines.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from accelerate.logging import get_logger

from hf_captioner.errors import ConfigError
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.training.data import Record, by_data_set, readable_records
from hf_captioner.training.data_sets import DataSet, given_data_sets, load_data_sets
from hf_captioner.training.initialization import Origin
from hf_captioner.training.recipe import FROM_BACKBONE, FURTHER, Recipe
from hf_captioner.training.rows import counted
from hf_captioner.training.trainer import Trainer

logger = get_logger(__name__)


def run(options: argparse.Namespace) -> int:
    """`hf-captioner train`. Returns 0; raises CaptionerError or OSError for what a user can cause."""
    out = options.out
    init = options.init or (None if options.backbone else str(bundled_checkpoint()))
    origin = Origin(options.backbone, init)
    recipe = Recipe.read(options.recipe or (FURTHER if origin.init else FROM_BACKBONE))
    data_sets = _data_sets(options, recipe)
    terms = options.weights_license.read_text(encoding="utf-8") if options.weights_license else None
    out.mkdir(parents=True, exist_ok=True)
    outside = options.allow_outside_paths
    records = load_data_sets(data_sets, split_file=out / "splits.json", seed=recipe.seed, allow_outside_paths=outside)
    used = [record for record in records if record.split != "test"]
    records = readable_records(used, skip_broken=options.skip_broken_images)
    trainer = Trainer(recipe, records, out, origin, device=options.device)
    if len(data_sets) > 1:
        _tell_sizes(records)
    if terms is not None:
        trainer.captioner.weights_license = terms
    if options.language is not None:
        trainer.captioner.evaluation = dataclasses.replace(trainer.captioner.evaluation, language=options.language)
    trainer.run()
    return 0


def _tell_sizes(records: Sequence[Record]) -> None:
    """Say what each data set brings."""
    for name, own in by_data_set(records).items():
        train = sum(record.split == "train" for record in own)
        shown, weight = counted(round(own[0].weight * train), "time"), f"{own[0].weight:g}"
        images = f"{counted(train, 'training image')} of weight {weight}, shown {shown} an epoch"
        logger.info("%s: %s; %s.", name, images, counted(len(own) - train, "validation image"))


def _data_sets(options: argparse.Namespace, recipe: Recipe) -> tuple[DataSet, ...]:
    """What is trained on: the command line says it, or the recipe. Raises ConfigError for both, and for neither."""
    if options.data and recipe.data:
        raise ConfigError("The data is given twice, on the command line and as data in the recipe; leave one out.")
    if not options.data and not recipe.data:
        raise ConfigError(
            "Training needs data; name it before --dataset and --weights, which take all that follows, or as data in a "
            "recipe."
        )
    if recipe.data and (options.dataset or options.weights):
        raise ConfigError("The recipe names the data, so it says each name and weight too; leave out the flags.")
    return recipe.data or given_data_sets(options.data, options.dataset, options.weights)
