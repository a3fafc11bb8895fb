"""The single `config.json` of version 0.1, format 0, read as the three files of format 1."""

from typing import Any

from hf_captioner.config import CaptionerConfig, ConfidenceConfig, GenerationConfig
from hf_captioner.hub.evaluation import Calibration, Evaluation, Occlusion, Scores

MODEL = {"encoder_node": "encoder_layer", "width": "hidden_size", "backward_width": "backward_hidden_size"}
GENERATION = {
    "beams": "num_beams",
    "num_captions": "num_return_sequences",
    "no_repeat_ngram": "no_repeat_ngram_size",
    "begin_with": "prefix",
    "avoid": "bad_words",
    "beam_groups": "num_beam_groups",
    "diversity": "diversity_penalty",
    "sample": "do_sample",
    "alternatives": "num_alternatives",
}
CONFIDENCE = {"far": "ood_threshold", "softness": "ood_temperature"}
CALIBRATION = {"tells_good": "auroc_correct", "tells_unlike": "auroc_ood", "found": "observed"}
OCCLUSION = {
    "photographs": "images",
    "untouched": "baseline",
    "hidden": "occluded",
    "mean_photograph": "mean_image",
    "mean_photograph_cider": "mean_image_cider",
}
SCORES = {"scores": "metrics"}
SPLITS = {"dev": "validation"}


def is_format_0(values: dict[str, Any]) -> bool:
    """Whether a config.json is version 0.1's: it names no format, and its search stands in it."""
    return "format" not in values and "model_type" not in values and {"search", "vocabulary_size"} <= values.keys()


def from_format_0(values: dict[str, Any]) -> tuple[CaptionerConfig, GenerationConfig, Evaluation]:
    """Read version 0.1's config. Raises ConfigError, in the names of format 1, where it makes no sense."""
    model = _renamed(values, MODEL)
    generation = GenerationConfig.from_dict(_renamed(model.pop("search"), GENERATION))
    results, calibration, occlusion = (model.pop(name, None) for name in ("results", "calibration", "occlusion"))
    evaluation: dict[str, Any] = {}
    if calibration is not None:
        measured = _renamed(calibration, CONFIDENCE | CALIBRATION)
        if isinstance(measured, dict):
            fitted = [name for name in ConfidenceConfig.__annotations__ if name in measured]
            model["confidence"] = {name: measured.pop(name) for name in fitted}
        evaluation["calibration"] = Calibration.from_dict(measured)
    if occlusion is not None:
        evaluation["occlusion"] = Occlusion.from_dict(_renamed(occlusion, OCCLUSION))
    if results is not None:
        scores = Scores.from_dict(_renamed(results, SCORES))
        evaluation["scores"] = (Scores(**{**vars(scores), "split": SPLITS.get(scores.split, scores.split)}),)
    return CaptionerConfig.from_dict(model), generation, Evaluation(**evaluation)


def _renamed(values: Any, names: dict[str, str]) -> Any:
    """The values under their new names; what is no JSON object is left for the config to refuse."""
    if not isinstance(values, dict):
        return values
    return {names.get(name, name): value for name, value in values.items()}
