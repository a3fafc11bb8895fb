"""The numbers and keys that README.md and docs/ quote are the checkpoint's, the recipes' and the page's own."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hf_captioner import CaptionerConfig, GenerationConfig, ImageCaptioner
from hf_captioner.config import ConfidenceConfig, ValidatedConfig
from hf_captioner.demo import limits, uploads
from hf_captioner.hub import evaluation
from hf_captioner.hub.evaluation import Evaluation
from hf_captioner.training.recipe import Recipe
from tests.documents import ROOT, prose_of, text_of
from train.ablation import read_rows, table

OBJECTS: dict[str, type[ValidatedConfig]] = {
    "config.json": CaptionerConfig,
    "confidence": ConfidenceConfig,
    "generation_config.json": GenerationConfig,
    "evaluation.json": Evaluation,
    "trained_on": evaluation.TrainingSet,
    "scores": evaluation.Scores,
    "calibration": evaluation.Calibration,
    "occlusion": evaluation.Occlusion,
    "habits": evaluation.Habits,
}
"""Heading of the page on the checkpoint's format -> the class whose fields are the keys below it."""


def default_of(field: dataclasses.Field[Any]) -> str:
    return "required" if field.default is dataclasses.MISSING else f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize("heading", OBJECTS)
def test_every_key_of_a_checkpoint_is_documented_with_its_default(heading: str) -> None:
    section = re.split(rf"^##+ {heading}$", text_of("docs/checkpoint.md"), flags=re.MULTILINE)[1]
    section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
    found = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .*\|$", section, re.MULTILINE))
    kind = OBJECTS[heading]
    expected = {field.name: default_of(field) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if heading.endswith(".json"):
        expected |= {name: f"always `{json.dumps(value)}`" for name, value in kind.header.items()}
    assert found == expected


def score_row(scores: evaluation.Scores, names: list[str]) -> str:
    values = " | ".join(f"{100 * scores.metrics[name]:.1f}" for name in names)
    return f"| {scores.dataset}, {scores.images:,} validation images | {values} |"


def test_the_numbers_are_the_bundled_checkpoints() -> None:
    description = ImageCaptioner.from_pretrained().description
    measured, accuracy, readme = description.evaluation, prose_of("docs/accuracy.md"), prose_of("README.md")
    occlusion, calibration, habits = measured.occlusion, measured.calibration, measured.habits
    assert occlusion is not None and calibration is not None and habits is not None
    assert [(scores.dataset, scores.split) for scores in measured.scores] == [
        (data.name, "validation") for data in measured.trained_on
    ]
    for page, names in ((accuracy, [*measured.scores[0].metrics]), (readme, ["BLEU-4", "METEOR", "ROUGE-L", "CIDEr"])):
        rows = " ".join(score_row(scores, names) for scores in measured.scores)
        assert f"| | {' | '.join(names)} | |---|{'---|' * len(names)} {rows} " in page
        assert f"{occlusion.baseline:.3f}" in page
    assert f"{sum(data.images for data in measured.trained_on):,} images" in readme
    for region, probability in occlusion.occluded.items():
        assert f"| {region} | {probability:.3f} | {100 * occlusion.changed[region]:.0f} % |" in accuracy
        assert region.startswith("least") or f"{probability:.3f}" in readme
    assert f"{occlusion.words:,} content words" in accuracy
    assert f'"{occlusion.mean_image}": CIDEr {100 * occlusion.mean_image_cider:.1f}' in accuracy
    bins = zip(calibration.predicted, calibration.observed, calibration.captions, strict=True)
    rows = " ".join(f"| {predicted:.2f} | {observed:.2f} | {count} |" for predicted, observed, count in bins)
    assert f"| confidence | better than the median | captions | |---|---|---| {rows} " in accuracy
    assert f"calibration error is {calibration.error:.3f}" in accuracy
    assert f"ROC curve is {calibration.auroc_correct:.2f}" in accuracy
    assert f"{calibration.auroc_ood:.2f} for validation images" in accuracy
    for said, written in ((habits.said["man"], habits.written["man"]), (habits.words_said, habits.words_written)):
        assert re.search(rf"says .*{said:.0f} .*writes?.* {written:,.0f}", accuracy)
    for agreed, so, other in (habits.men, habits.women):
        assert re.search(rf"{agreed} .*so for {so} and .* for {other}\b", accuracy)
    assert f"{description.config.vocabulary_size:,} words" in accuracy
    assert f"{description.config.image_size} pixels" in accuracy


@pytest.mark.parametrize("plan", ["ablation", "data_sets"])
def test_the_ablation_is_the_table_of_its_json(plan: str) -> None:
    rows, _ = read_rows(ROOT / "train" / "recipes" / f"{plan}.yaml")
    found = json.loads(text_of(f"train/recipes/{plan}.json"))
    assert f"\n\n{table(rows, found['results'], found['not measured'], found['times'])}\n" in text_of(
        "docs/ablation.md"
    )


def test_the_classic_captioners_are_a_line_each(tmp_path: Path) -> None:
    rows = re.findall(r"^\| .*`(\{encoder.*\})` \|$", text_of("docs/training.md"), re.MULTILINE)
    assert len(rows) >= 4
    for row in rows:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"model: {row}\nstages: [{{epochs: 1, learning_rate: 0.001}}]\n")
        assert Recipe.read(recipe).captioner_config(1000).encoder in row


def test_the_pages_limits_are_as_stated() -> None:
    readme, page = prose_of("README.md"), prose_of("docs/page.md")
    assert f"{limits.MAX_FILES} photos" in readme and f"{limits.MAX_FILES} photos" in page
    assert f"{uploads.UPLOAD_TTL // 60} minutes" in page
