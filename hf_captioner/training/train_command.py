"""Train a captioner: `hf-captioner train DATA --out DIR [--recipe FILE] [--backbone FILE | --init ID]`.

Started again with the same arguments after any interruption, it resumes and ends with the same weights; then the
captioner is tuned, calibrated and scored (`finish.py`). Under `accelerate launch` the same command trains on several
processes or machines.
"""

import argparse
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from hf_captioner.atomic import write_text
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError
from hf_captioner.hub.evaluation import without_paths
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.training.data import Record, by_data_set, readable_records
from hf_captioner.training.data_sets import DataSet, given_data_sets, load_data_sets
from hf_captioner.training.default_recipe import default_recipe
from hf_captioner.training.finish import Finish, Notes
from hf_captioner.training.initialization import Origin
from hf_captioner.training.recipe import Recipe
from hf_captioner.training.rows import counted
from hf_captioner.training.trainer import Trainer

logger = logging.getLogger(__name__)


def run(options: argparse.Namespace) -> int:
    """`hf-captioner train`. Returns 0; raises CaptionerError or OSError for what a user can cause."""
    out, splits = options.out, options.out / "splits.json"
    init = options.init or (None if options.backbone else str(bundled_checkpoint()))
    origin = Origin(options.backbone, init)
    given = Recipe.read(options.recipe) if options.recipe else None
    data_sets = _data_sets(options, given)
    terms = options.weights_license.read_text(encoding="utf-8") if options.weights_license else None
    out.mkdir(parents=True, exist_ok=True)
    outside, seed = options.allow_outside_paths, given.seed if given else Recipe.seed
    found = load_data_sets(data_sets, split_file=splits, seed=seed, allow_outside_paths=outside)
    used = [record for record in found if record.split != "test"]
    records = readable_records(used, skip_broken=options.skip_broken_images)
    recipe, why = (given, f"recipe {options.recipe}") if given else _default_recipe(options, init, records)
    trainer = Trainer(recipe, records, out, origin, device=options.device)
    if terms is not None:
        trainer.captioner.weights_license = terms
    if options.language is not None:
        trainer.captioner.evaluation = dataclasses.replace(trainer.captioner.evaluation, language=options.language)
    if not trainer.accelerator.is_main_process:
        trainer.run()
        return 0
    finish = _finish(options, trainer, data_sets)
    if finish.finished:
        logger.info("%s holds a finished run; its captioner lies in %s.", out, finish.folder)
        return 0
    if not trainer.state_file.exists():
        for sentence in (*_sizes(found, splits, seed), why, f"the captioner will lie in {finish.folder}"):
            logger.info("%s", sentence)
    if init is not None:
        trainer.afterwards = finish.before(init)
    trainer.run()
    finish.run()
    return 0


def _default_recipe(options: argparse.Namespace, init: str | None, records: Sequence[Record]) -> tuple[Recipe, str]:
    """The recipe that the data asks for, and why; a run that goes on keeps the one that it began with."""
    encoder = ImageCaptioner.from_pretrained(init, device="cpu").config.encoder if init else None
    images = sum(record.split == "train" for record in records)
    file, why = default_recipe(images, encoder, gpu=options.device != "cpu" and torch.cuda.is_available())
    kept = options.out / "recipe.yaml"
    if not (options.out / "state.safetensors").exists() or not kept.exists():
        write_text(kept, file.read_text(encoding="utf-8"))
    return Recipe.read(kept), why


def _sizes(records: Sequence[Record], splits: Path, seed: int) -> Iterator[str]:
    """What each data set brings, and where its splits are kept if it names none."""
    found = by_data_set(records)
    for name, own in found.items():
        train, validation, test = (
            sum(record.split == split for record in own) for split in ("train", "validation", "test")
        )
        said = f"{counted(train, 'image')} to train on, {validation:,} to validate, {test:,} left for a test"
        if len(found) > 1:
            shown = counted(round(own[0].weight * train), "time")
            said = f"{name}: {said}; weight {own[0].weight:g}, so shown {shown} an epoch"
        yield said
    if splits.exists():
        yield f"splits that the data does not name are drawn 80 / 10 / 10 by the seed {seed} and kept in {splits}"


def _data_sets(options: argparse.Namespace, recipe: Recipe | None) -> tuple[DataSet, ...]:
    """What is trained on: the command line says it, or the recipe. Raises ConfigError for both, and for neither."""
    named = recipe.data if recipe else ()
    if options.data and named:
        raise ConfigError("The data is given twice, on the command line and as data in the recipe; leave one out.")
    if not options.data and not named:
        raise ConfigError(
            "Training needs data; name it before --dataset and --weights, which take all that follows, or as data in a "
            "recipe."
        )
    if named and (options.dataset or options.weights):
        raise ConfigError("The recipe names the data, so it says each name and weight too; leave out the flags.")
    return named or given_data_sets(options.data, options.dataset, options.weights)


def _finish(options: argparse.Namespace, trainer: Trainer, data_sets: Sequence[DataSet]) -> Finish:
    given = {options.out: "DIR", options.recipe: "FILE", options.weights_license: "FILE"}
    given |= dict.fromkeys((data_set.source for data_set in data_sets), "DATA")
    given |= dict.fromkeys((options.init, options.backbone), "MODEL")
    places = {str(path): what for path, what in given.items() if path and Path(path).exists()}
    return Finish(
        trainer.out / "best",
        Notes(trainer.out / "finish.json", trainer.identity),
        trainer.train,
        trainer.validation,
        str(trainer.accelerator.device),
        without_paths(options.command, places),
    )
