"""The model card: only what the checkpoint's own files say."""

import dataclasses
import hashlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from hf_captioner.atomic import write_files
from hf_captioner.hub.checkpoint import CARD, LICENSE, Description, read_description, read_text
from hf_captioner.hub.evaluation import Scores
from hf_captioner.hub.packaged import data_path

logger = logging.getLogger(__name__)

PLACEHOLDER_REPO = "your-name/your-captioner"
"""Stands for the repository in a card that has not been pushed yet."""
SIGNATURE = "<!-- Written by hf-captioner ({digest}). Once edited, this card is not overwritten. -->\n"


def render_card(description: Description, repo_id: str | None = None, *, license_text: str | None = None) -> str:
    """The model card, from `model_card.md`.

    Scores stand in a table, and in the model-index metadata where they were measured with the PTB tokenisation, so
    that they may be compared. license_text: the weights' own licence, which lies beside them as LICENSE; None where
    there is none.
    """
    repo_id, scores = repo_id or PLACEHOLDER_REPO, description.evaluation.scores
    comparable = [result for one in scores if one.tokenization == "PTB" for result in _eval_results(one)]
    own_license: dict[str, Any] = {}
    if license_text is not None:
        name = "non-commercial" if "non-commercial" in license_text else "custom"
        own_license = {"license": "other", "license_name": name, "license_link": "LICENSE"}
    data = ModelCardData(
        language="en",
        library_name="hf-captioner",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "visual-attention"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=comparable or None,
        metrics=sorted({_metric_type(name) for one in scores for name in one.metrics}) or None,
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
        evaluation=description.evaluation,
        repo_id=repo_id,
        license_text=license_text,
    )
    return _signed(text)


def update_evaluation(folder: Path, **changes: Any) -> None:
    """Change fields of a checkpoint folder's Evaluation, and its card with them unless a person wrote that.

    Raises CheckpointError for a folder that is no checkpoint, OSError where it cannot be written.
    """
    old = read_description(folder)
    new = dataclasses.replace(old, evaluation=dataclasses.replace(old.evaluation, **changes))
    texts, card = new.texts(), read_text(folder / CARD)
    if card is None or is_generated(card):
        texts[CARD] = render_card(new, license_text=read_text(folder / LICENSE))
    else:
        logger.warning("%s was written or edited by a person; it is left as it is.", folder / CARD)
    write_files(folder, {name: partial(_write_text, text=text) for name, text in texts.items()})


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def is_generated(card: str) -> bool:
    """Whether a card is as `render_card` wrote it: its last line holds the digest of all the others."""
    body, _, _ = card.removesuffix("\n").rpartition("\n")
    return card == _signed(f"{body}\n")


def _signed(body: str) -> str:
    return body + SIGNATURE.format(digest=hashlib.sha256(body.encode()).hexdigest()[:16])


def _metric_type(name: str) -> str:
    """The Hub's name of a metric: `BLEU-4` is `bleu`."""
    return name.partition("-")[0].lower()


def _eval_results(scores: Scores) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="Image Captioning",
            dataset_type=scores.dataset.lower(),
            dataset_name=scores.dataset,
            dataset_split=scores.split,
            metric_type=_metric_type(name),
            metric_name=name,
            metric_value=round(100 * value, 2),
        )
        for name, value in scores.metrics.items()
    ]
