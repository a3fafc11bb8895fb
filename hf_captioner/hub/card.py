"""The model card: only what the checkpoint's own files say."""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from hf_captioner.hub.checkpoint import (
    CARD,
    LICENSE,
    Description,
    finish_replacing,
    read_description,
    read_text,
    replacing,
)
from hf_captioner.hub.evaluation import FEW_IMAGES, HUB_ID, Scores, without_paths
from hf_captioner.hub.packaged import data_path

logger = logging.getLogger(__name__)

PLACEHOLDER_REPO = "your-name/your-captioner"
"""Stands for the repository in a card that has not been pushed yet."""
SIGNATURE = "<!-- Written by hf-captioner ({digest}). Once edited, this card is not overwritten. -->\n"


def render_card(
    description: Description, repo_id: str | None = None, *, license_text: str | None = None, in_space: bool = False
) -> str:
    """The model card, from `model_card.md`.

    Scores stand in a table, and in the model-index metadata where they may be compared: measured with the PTB
    tokenisation, on FEW_IMAGES images or more. license_text: the weights' own licence, which lies beside them as
    LICENSE; None where there is none. in_space: `repo_id` is a Space that holds the checkpoint, and no model.
    """
    evaluation, repo_id = description.evaluation, repo_id or PLACEHOLDER_REPO
    comparable = [
        scores for scores in evaluation.scores if scores.tokenization == "PTB" and scores.images >= FEW_IMAGES
    ]
    language = evaluation.language or "en"
    own_license: dict[str, Any] = {}
    if license_text is not None:
        name = "non-commercial" if "non-commercial" in license_text else "custom"
        own_license = {"license": "other", "license_name": name, "license_link": "LICENSE"}
    data = ModelCardData(
        language=language,
        base_model=evaluation.base_model,
        datasets=[data.name for data in evaluation.trained_on if HUB_ID.fullmatch(data.name)] or None,
        library_name="hf-captioner",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "visual-attention"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=[result for scores in comparable for result in _eval_results(scores)] or None,
        metrics=sorted({_metric_type(name) for scores in evaluation.scores for name in scores.metrics}) or None,
        **own_license,
    )
    environment = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(data_path("model_card.md").read_text(encoding="utf-8"))
    text = template.render(
        card_data=data,
        config=description.config,
        generation=description.generation_config,
        evaluation=evaluation,
        few_images=FEW_IMAGES,
        without_paths=without_paths,
        language=language,
        repo_id=repo_id,
        in_space=in_space,
        license_text=license_text,
    )
    return signed(text)


def update_evaluation(folder: Path, **changes: Any) -> None:
    """Change fields of a checkpoint folder's Evaluation, and its card with them unless a person wrote that.

    Raises CheckpointError for a folder that is no checkpoint or cannot be written, and for what would not load again.
    """
    finish_replacing(folder)
    old = read_description(folder)
    new = dataclasses.replace(old, evaluation=dataclasses.replace(old.evaluation, **changes))
    texts, card = new.texts(), read_text(folder, CARD)
    if card is None or is_generated(card):
        texts[CARD] = render_card(new, license_text=read_text(folder, LICENSE))
    else:
        logger.warning("%s was written or edited by a person; it is left as it is.", folder / CARD)
    with replacing(folder) as staged:
        for name, text in texts.items():
            (staged / name).write_text(text, encoding="utf-8")
        read_description(staged)


def is_generated(card: str) -> bool:
    """Whether a card is as `render_card` wrote it: its last line holds the digest of all the others."""
    body, _, _ = card.removesuffix("\n").rpartition("\n")
    return card == signed(f"{body}\n")


def signed(body: str) -> str:
    """A card with the line below it that tells whether a person has edited it since."""
    return body + SIGNATURE.format(digest=hashlib.sha256(body.encode()).hexdigest()[:16])


def _metric_type(name: str) -> str:
    """The Hub's name of a metric: `BLEU-4` is `bleu`."""
    return name.partition("-")[0].lower()


def _eval_results(scores: Scores) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="Image Captioning",
            dataset_type=scores.dataset if HUB_ID.fullmatch(scores.dataset) else scores.dataset.lower(),
            dataset_name=scores.dataset,
            dataset_split=scores.split,
            metric_type=_metric_type(name),
            metric_name=name,
            metric_value=round(100 * value, 2),
        )
        for name, value in scores.metrics.items()
    ]
