"""A checkpoint's files but for the weights: which there are, how large they may be, and what its JSON files say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hf_captioner.config import MODEL_TYPE, CaptionerConfig, GenerationConfig, ValidatedConfig
from hf_captioner.errors import CheckpointError, ConfigError
from hf_captioner.hub.evaluation import Evaluation
from hf_captioner.hub.format0 import from_format_0, is_format_0

CONFIG, GENERATION, EVALUATION = "config.json", "generation_config.json", "evaluation.json"
TOKENIZER, WEIGHTS, CARD, LICENSE = "tokenizer.json", "model.safetensors", "README.md", "LICENSE"
REQUIRED_FILES = (CONFIG, TOKENIZER, WEIGHTS)
SMALL_FILES = (CONFIG, GENERATION, EVALUATION, TOKENIZER, CARD, LICENSE)
CHECKPOINT_FILES = (*SMALL_FILES, WEIGHTS)
MAX_WEIGHTS_BYTES = 1 << 30
MAX_FILE_BYTES = 1 << 24
"""Of every other file; one of more is neither fetched nor read."""

Config = TypeVar("Config", bound=ValidatedConfig)


@dataclass(frozen=True)
class Description:
    """What a checkpoint's JSON files say."""

    config: CaptionerConfig
    generation_config: GenerationConfig
    evaluation: Evaluation

    def texts(self) -> dict[str, str]:
        """The files' contents by name; an evaluation that holds nothing has no file."""
        texts = {CONFIG: self.config.to_json(), GENERATION: self.generation_config.to_json()}
        if self.evaluation != Evaluation():
            texts[EVALUATION] = self.evaluation.to_json()
        return texts


def read_description(folder: Path) -> Description:
    """The JSON files of a checkpoint's folder, of format 0 (version 0.1) or 1; generation_config.json and
    evaluation.json may be missing.

    Raises CheckpointError for one that is broken, of a newer format, or another library's.
    """
    values = _read_json(folder, CONFIG)
    _check_kind(folder / CONFIG, values)
    if is_format_0(values):
        try:
            return Description(*from_format_0(values))
        except ConfigError as error:
            raise CheckpointError(f"{folder / CONFIG}: {error}") from error
    return Description(
        _validated(CaptionerConfig, folder, CONFIG, values),
        _optional(GenerationConfig, folder, GENERATION),
        _optional(Evaluation, folder, EVALUATION),
    )


def check_whole(folder: Path, name: str) -> None:
    """Raise CheckpointError for a folder that lacks one of REQUIRED_FILES, or holds a file that is too large.

    name: what the user calls it, a path or a Hub id.
    """
    absent = [file for file in REQUIRED_FILES if not (folder / file).is_file()]
    if absent:
        raise CheckpointError(f"{name} isn't a captioner: {', '.join(absent)} {_are(absent)} missing.")
    present = [file for file in CHECKPOINT_FILES if (folder / file).is_file()]
    check_sizes(name, {file: (folder / file).stat().st_size for file in present})


def check_sizes(name: str, sizes: dict[str, int]) -> None:
    """Raise CheckpointError where a file (name -> bytes) is larger than a captioner's may be."""
    for file, size in sizes.items():
        most = MAX_WEIGHTS_BYTES if file == WEIGHTS else MAX_FILE_BYTES
        if size > most:
            raise CheckpointError(f"{name}: {file} has {size:,} bytes; a captioner's has at most {most:,}.")


def read_text(path: Path) -> str | None:
    """A text file's content; None where there is no such file."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _read_json(folder: Path, name: str) -> Any:
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} isn't a captioner: {name} is missing.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); expected a captioner's {name}.") from error


def _check_kind(path: Path, values: Any) -> None:
    """Raise CheckpointError for the config.json of another library."""
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} expects a JSON object; found {type(values).__name__}.")
    ours = values["model_type"] == MODEL_TYPE if "model_type" in values else "vocabulary_size" in values
    if not ours:
        kind = f"model_type {values['model_type']!r}, " if "model_type" in values else ""
        keys = ", ".join(list(values)[:5]) or "none"
        raise CheckpointError(
            f"{path} is the configuration of another kind of model ({kind}keys {keys}); "
            "expected one that ImageCaptioner.save_pretrained wrote."
        )


def _optional(kind: type[Config], folder: Path, name: str) -> Config:
    if not (folder / name).exists():
        return kind()
    return _validated(kind, folder, name, _read_json(folder, name))


def _validated(kind: type[Config], folder: Path, name: str, values: Any) -> Config:
    try:
        return kind.from_file(values)
    except ConfigError as error:
        raise CheckpointError(f"{folder / name}: {error}") from error
