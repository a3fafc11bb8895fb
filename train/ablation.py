"""The ablation: `python -m train.ablation --data DATA --out DIR --weights DIR [--rows WORD ...] [--seeds N ...]`.

Trains every row of `train/recipes/ablation.yaml` with each seed, scores it on the validation split with 1, 3 and 5
beams, and writes `ablation.md` (the table of docs/ablation.md), `ablation.json` and `ablation.png`. Started again it
skips what is measured; several may run side by side with different seeds. --time measures, on an idle machine, how fast
the measured rows train and caption. Of several data sets a row trains on those that its plan names, and is scored on
each.
"""

import argparse
import copy
import json
import logging
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_captioner.atomic import write_text
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.config import TIMM
from hf_captioner.errors import BackboneError, CaptionerError, ConfigError, TrainingError
from hf_captioner.training.command import run_command
from hf_captioner.training.data import Record, by_data_set
from hf_captioner.training.data_sets import given_data_sets, load_data_sets
from hf_captioner.training.evaluate import caption_records, score
from hf_captioner.training.feature_cache import cached_features
from hf_captioner.training.initialization import Origin
from hf_captioner.training.recipe import Recipe
from hf_captioner.training.trainer import Trainer

logger = logging.getLogger(__name__)

BEAMS = (1, 3, 5)
TIMED = 300
"""Images of a split that are trained on, or captioned, to time it."""
TIMES = "times.json"
SHOWN = ("BLEU-1", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")


class MissingRowError(CaptionerError):
    """The row that another one starts from has no weights."""


REASONS: dict[type[Exception], str] = {
    BackboneError: "needs its ImageNet weights, from torchvision or in --weights",
    TrainingError: "the training diverged",
    MissingRowError: "needs the row that it starts from",
}
"""Why a row has no numbers, short enough for a table."""


@dataclass(frozen=True)
class Row:
    name: str
    recipe: dict[str, Any]
    init: str | None = None
    """Name of the row whose best weights this one starts from."""
    data: dict[str, float] | None = None
    """Name -> weight of the data sets that it is trained on; None: of all that are given, one as much as the other."""

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def read_rows(file: Path) -> tuple[list[Row], list[int]]:
    """The rows of a comparison and its seeds."""
    try:
        plan = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML ({error}).") from error
    rows = [
        Row(row["name"], _merged(plan["base"], row.get("change", {})), row.get("init"), row.get("data"))
        for row in plan["rows"]
    ]
    return rows, plan["seeds"]


def own_records(row: Row, records: Sequence[Record]) -> list[Record]:
    """What a row is trained on, each record with its weight. Raises ConfigError for a data set that is not given."""
    if row.data is None:
        return list(records)
    given = by_data_set(records)
    absent = [name for name in row.data if name not in given]
    if absent:
        raise ConfigError(
            f"{row.name!r} is trained on {', '.join(absent)}; found {', '.join(given)}. Give each data set as --data, "
            "and its name as --dataset in the same order."
        )
    return [replace(record, weight=weight) for name, weight in row.data.items() for record in given[name]]


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(base)
    for name, value in change.items():
        merged[name] = _merged(merged[name], value) if isinstance(value, dict) else value
    return merged


def measure(row: Row, seed: int, records: Sequence[Record], out: Path, weights: Path) -> None:
    """Train one row under one seed, score it and write `result.json`; where that is there, nothing is done."""
    folder = out / f"{row.folder}-{seed}"
    result, plain = folder / "result.json", {**row.recipe, "seed": seed}
    recipe = Recipe.from_plain(plain, row.name)
    if result.exists():
        before = json.loads(result.read_text())
        if (before["recipe"], before["data"]) != (plain, row.data):
            raise ConfigError(
                f"{result} was measured with another recipe or data; delete {folder} to measure that row anew."
            )
        return
    own = own_records(row, records)
    trainer = Trainer(recipe, own, folder, _origin(row, seed, out, weights), features=out / "features")
    trainer.run()
    captioner = ImageCaptioner.from_pretrained(folder / "best")
    found: dict[str, Any] = {
        "row": row.name,
        "seed": seed,
        "recipe": plain,
        "data": row.data,
        "parameters": sum(parameter.numel() for parameter in captioner.parameters()),
        "data_sets": {},
    }
    validation = by_data_set(record for record in records if record.split == "validation")
    for name, members in validation.items():
        found["data_sets"][name] = _scored(captioner, members, out / "features")
    write_text(result, json.dumps(found, indent=1))
    trainer.state_file.unlink()


def _scored(captioner: ImageCaptioner, validation: Sequence[Record], cache: Path) -> dict[str, dict[str, float]]:
    """The scores of each number of beams on one data set."""
    features = cached_features(captioner.encoder, captioner.config, [record.path for record in validation], cache)
    found = {}
    for beams in BEAMS:
        captions = caption_records(captioner, validation, features=features, num_beams=beams)
        texts = [caption.text for caption in captions]
        found[str(beams)] = {**score(texts, validation, meteor=beams == 3), "different": len(set(texts))}
    return found


def _origin(row: Row, seed: int, out: Path, weights: Path) -> Origin:
    """What a row's training starts from. Raises MissingRowError."""
    if row.init:
        best = out / f"{Row(row.init, {}).folder}-{seed}" / "best"
        if not best.exists():
            raise MissingRowError(f"It starts from {row.init!r}, which has no weights in {best}; train that row first.")
        return Origin(init=str(best))
    local = weights / f"{row.recipe['model']['encoder'].removeprefix(TIMM)}.safetensors"
    return Origin(backbone=str(local) if local.exists() else "torchvision")


def time_row(row: Row, seed: int, records: Sequence[Record], out: Path, weights: Path) -> dict[str, float]:
    """Minutes that a row trains for, from an epoch of each stage on some of the images; and milliseconds an
    image with 3 beams, from the file to the words."""
    recipe = Recipe.from_plain({**row.recipe, "seed": seed}, row.name)
    once = replace(recipe, stages=tuple(replace(stage, epochs=1) for stage in recipe.stages))
    own = [replace(record, weight=1.0) for record in own_records(row, records)]
    train, validation = ([record for record in own if record.split == split] for split in ("train", "validation"))
    shown = sum(record.weight for record in own_records(row, records) if record.split == "train")
    with tempfile.TemporaryDirectory() as folder:
        origin = _origin(row, seed, out, weights)
        trainer = Trainer(once, [*train[:TIMED], *validation[:TIMED]], Path(folder), origin, features=out / "features")
        trainer.run()
        captioner = ImageCaptioner.from_pretrained(Path(folder) / "best")
    minutes = sum(
        stage.epochs * epoch["seconds"] / 60 * shown / len(train[:TIMED])
        for stage, epoch in zip(recipe.stages, trainer.progress.history, strict=True)
    )
    paths = [record.path for record in validation[:TIMED]]
    captioner.caption(paths[:8], num_beams=3)  # the first captions pay for what is set up once
    began = time.perf_counter()
    captioner.caption(paths, num_beams=3)
    return {"minutes": minutes, "milliseconds": 1000 * (time.perf_counter() - began) / len(paths)}


def measured(rows: Sequence[Row], out: Path) -> list[dict[str, Any]]:
    """Every result there is, in the order of the rows."""
    files = [file for row in rows for file in sorted(out.glob(f"{row.folder}-[0-9]*/result.json"))]
    return [json.loads(file.read_text()) for file in files]


def table(
    rows: Sequence[Row], results: Sequence[dict[str, Any]], failed: dict[str, str], times: dict[str, dict[str, float]]
) -> str:
    """Scores x 100 with 3 beams: mean over the seeds, and where there are several their standard deviation.

    A line a row; where several data sets are measured, one for each of them.
    """
    head = [*SHOWN, "CIDEr greedy", "CIDEr 5 beams", "different", "million parameters"]
    head += ["minutes to train", "ms a caption", "seeds"]
    lines = [f"| captioner | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for row in rows:
        own = [result for result in results if result["row"] == row.name]
        if not own:
            reason = failed.get(row.name, "not measured yet")
            lines.append(f"| {row.name} | {reason} |{' |' * (len(head) - 1)}")
        for name in own[0]["data_sets"] if own else ():
            time_of = times.get(row.name)
            cells = _scores([result["data_sets"][name] for result in own])
            cells.append(f"{own[0]['parameters'] / 1e6:.1f}")
            cells += [f"{time_of[kind]:.0f}" if time_of else "-" for kind in ("minutes", "milliseconds")]
            lines.append(f"| {_label(own[0], name)} | {' | '.join(cells)} | {len(own)} |")
    return "\n".join(lines) + "\n"


def _label(result: dict[str, Any], data_set: str) -> str:
    return result["row"] if len(result["data_sets"]) == 1 else f"{result['row']}; on {data_set}"


def _scores(beams: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """The cells of SHOWN and of what follows from other searches, from each seed's scores by its number of beams."""
    three = [each["3"] for each in beams]
    columns = [[100 * scores[name] for scores in three if name in scores] for name in SHOWN]
    columns += [[100 * each[number]["CIDEr"] for each in beams] for number in ("1", "5")]
    return [*map(_spread, columns), f"{statistics.mean(scores['different'] for scores in three):.0f}"]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def plot(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Validation CIDEr of every line of the table, a dot a seed."""
    found = [
        (_label(result, name), beams["3"]["CIDEr"]) for result in results for name, beams in result["data_sets"].items()
    ]
    labels = list(dict.fromkeys(label for label, _ in found))
    figure = Figure(figsize=(9, 1 + 0.4 * len(labels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, cider in found:
        axes.plot(100 * cider, labels.index(label), "o", color="tab:blue", alpha=0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("validation CIDEr x 100, 3 beams; a dot a seed")
    figure.savefig(path, dpi=100)


def _times(out: Path) -> dict[str, dict[str, float]]:
    file = out / TIMES
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _is_meant(row: Row, words: Sequence[str]) -> bool:
    return not words or any(word.lower() in row.name.lower() for word in words)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.ablation", description=__doc__)
    parser.add_argument("--plan", type=Path, default=Path(__file__).parent / "recipes" / "ablation.yaml")
    data = "images and captions: a folder, a file, or a Hub data set's id; or several of them"
    parser.add_argument("--data", required=True, nargs="+", help=data)
    names = "what the plan calls each data set (default: its Hub id or its folder)"
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help=names)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder with ENCODER.safetensors; else torchvision's"
    )
    parser.add_argument("--rows", nargs="*", default=(), metavar="WORD", help="only the rows whose name holds a word")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of the plan's")
    parser.add_argument("--time", action="store_true", help="only time what is measured")
    options = parser.parse_args(argv)
    return run_command(parser.prog, lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    rows, seeds = read_rows(options.plan)
    chosen = [row for row in rows if _is_meant(row, options.rows)]
    if not chosen:
        raise ConfigError(f"No row's name holds {' or '.join(options.rows)}; see {options.plan}.")
    data_sets = given_data_sets(options.data, options.dataset)
    records = load_data_sets(data_sets, split_file=out / "splits.json", seed=1)
    failed: dict[str, str] = {}
    if options.time:
        _time_measured(chosen, records, out, options.weights)
        _write(out, rows, failed)
    for seed in [] if options.time else options.seeds or seeds:
        for row in chosen:
            try:
                measure(row, seed, records, out, options.weights)
            except tuple(REASONS) as error:
                failed[row.name] = f"not measured: {REASONS[type(error)]}"
                logger.warning("%s: %s", row.name, error)
            _write(out, rows, failed)
    print((out / "ablation.md").read_text(encoding="utf-8"), end="")


def _time_measured(rows: Sequence[Row], records: Sequence[Record], out: Path, weights: Path) -> None:
    seeds = {result["row"]: result["seed"] for result in reversed(measured(rows, out))}
    times = _times(out)
    for row in rows:
        if row.name in seeds:
            times[row.name] = time_row(row, seeds[row.name], records, out, weights)
            write_text(out / TIMES, json.dumps(times, indent=1))


def _write(out: Path, rows: Sequence[Row], failed: dict[str, str]) -> None:
    results, times = measured(rows, out), _times(out)
    found = {"results": results, "times": times, "not measured": failed}
    write_text(out / "ablation.md", table(rows, results, failed, times))
    write_text(out / "ablation.json", json.dumps(found, indent=1))
    if results:
        plot(results, out / "ablation.png")


if __name__ == "__main__":
    sys.exit(main())
