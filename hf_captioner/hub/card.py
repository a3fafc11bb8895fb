"""The model card: what a checkpoint's own files say of it."""

import hashlib
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData

from hf_captioner.config import CaptionerConfig, Results
from hf_captioner.hub.packaged import data_path

PLACEHOLDER_REPO = "your-name/your-captioner"
"""Stands for the repository in a card that has not been pushed yet."""
SIGNATURE = "<!-- Written by hf-captioner ({digest}). Once edited, this card is not overwritten. -->\n"


def render_card(config: CaptionerConfig, repo_id: str = PLACEHOLDER_REPO, *, licence: str | None = None) -> str:
    """The model card, from `model_card.md`: measured results as a table, and as model-index metadata where they
    were measured with the PTB tokenisation, so that they may be compared.

    licence: the text of the weights' own licence, which lies beside them as LICENSE; None where there is none.
    """
    results = config.results
    comparable = results if results and results.tokenization == "PTB" else None
    own_licence: dict[str, Any] = {}
    if licence is not None:
        name = "non-commercial" if "non-commercial" in licence else "custom"
        own_licence = {"license": "other", "license_name": name, "license_link": "LICENSE"}
    data = ModelCardData(
        language="en",
        library_name="hf-captioner",
        pipeline_tag="image-to-text",
        tags=["image-captioning", "visual-attention"],
        model_name=repo_id.rpartition("/")[2],
        eval_results=_eval_results(comparable) if comparable else None,
        metrics=sorted({_metric_type(name) for name in results.scores}) if results else None,
        **own_licence,
    )
    environment = jinja2.Environment(
        autoescape=False, keep_trailing_newline=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(data_path("model_card.md").read_text(encoding="utf-8"))
    return _signed(template.render(card_data=data, config=config, results=results, repo_id=repo_id, licence=licence))


def is_generated(card: str) -> bool:
    """Whether a card is as `render_card` wrote it: its last line holds the digest of all the others."""
    body, _, _ = card.removesuffix("\n").rpartition("\n")
    return card == _signed(f"{body}\n")


def _signed(body: str) -> str:
    return body + SIGNATURE.format(digest=hashlib.sha256(body.encode()).hexdigest()[:16])


def _metric_type(name: str) -> str:
    """The Hub's name of a metric: `BLEU-4` is `bleu`."""
    return name.partition("-")[0].lower()


def _eval_results(results: Results) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-to-text",
            task_name="Image Captioning",
            dataset_type=results.dataset.lower(),
            dataset_name=results.dataset,
            dataset_split=results.split,
            metric_type=_metric_type(name),
            metric_name=name,
            metric_value=round(100 * value, 2),
        )
        for name, value in results.scores.items()
    ]
