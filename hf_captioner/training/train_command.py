"""Train a captioner: `hf-captioner train DATA --out DIR [--recipe FILE] [--backbone FILE | --init ID]`.

Started again with the same arguments after any interruption, it resumes and ends with the same weights.
Under `accelerate launch` the same command trains on several processes or machines.
"""

import argparse
import dataclasses

from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.training.command import data_set_name, single_data_set
from hf_captioner.training.data import load_records, readable_records
from hf_captioner.training.initialization import Origin
from hf_captioner.training.recipe import FROM_BACKBONE, FURTHER, Recipe
from hf_captioner.training.trainer import Trainer


def run(options: argparse.Namespace) -> int:
    """`hf-captioner train`. Returns 0; raises CaptionerError or OSError for what a user can cause."""
    data, out = single_data_set("train", options.data), options.out
    dataset = data_set_name(data, options.dataset)
    init = options.init or (None if options.backbone else str(bundled_checkpoint()))
    origin = Origin(options.backbone, init)
    recipe = Recipe.read(options.recipe or (FURTHER if origin.init else FROM_BACKBONE))
    terms = options.weights_license.read_text(encoding="utf-8") if options.weights_license else None
    out.mkdir(parents=True, exist_ok=True)
    outside = options.allow_outside_paths
    records = load_records(data, split_file=out / "splits.json", seed=recipe.seed, allow_outside_paths=outside)
    used = [record for record in records if record.split != "test"]
    records = readable_records(used, skip_broken=options.skip_broken_images)
    trainer = Trainer(recipe, records, out, origin, dataset=dataset, device=options.device)
    if terms is not None:
        trainer.captioner.weights_license = terms
    if options.language is not None:
        trainer.captioner.evaluation = dataclasses.replace(trainer.captioner.evaluation, language=options.language)
    trainer.run()
    return 0
