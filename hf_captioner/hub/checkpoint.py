"""A checkpoint's files but for the weights: which there are, how large they may be, and what its JSON files say."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
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
MAX_BYTES = {
    CONFIG: 1 << 20,
    GENERATION: 1 << 20,
    EVALUATION: 1 << 20,
    TOKENIZER: 1 << 24,
    CARD: 1 << 20,
    LICENSE: 1 << 20,
    WEIGHTS: 1 << 30,
}
"""A checkpoint's files, and how large each may be: one of more is neither fetched nor read, from wherever it comes."""
MAX_EXPORT_BYTES = 1 << 30
"""Of each graph of its export."""
CHECKPOINT_FILES = tuple(MAX_BYTES)
SAVED = ".saved"
"""The folder below a checkpoint whose files are to replace the checkpoint's: whole from when it has this name on."""
GONE = ".gone"
"""The end of the name of an empty file in it, for a file of the checkpoint that is to go."""

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
        if size > (most := MAX_BYTES.get(file, MAX_EXPORT_BYTES)):
            raise CheckpointError(f"{name}: {file} has {size:,} bytes; a captioner's has at most {most:,}.")


def read_text(folder: Path, name: str) -> str | None:
    """The content of README.md or LICENSE, which is pushed as it is; None where there is none.

    Raises CheckpointError for a link that leaves the folder, and for a file that is too large.
    """
    path = own_file(folder, name)
    if path is None:
        return None
    check_sizes(str(folder), {name: path.stat().st_size})
    return path.read_text(encoding="utf-8", errors="replace")


def own_file(folder: Path, name: str) -> Path | None:
    """The path of a folder's regular file; None where there is none.

    Raises CheckpointError for a link that leaves the folder: what it leads to was not meant to be published.
    """
    path = folder / name
    if not path.is_file():
        return None
    if not lies_in(path, folder):
        raise CheckpointError(f"{path} is a link to a file outside of its folder; put the file itself there.")
    return path


def lies_in(path: Path, folder: Path) -> bool:
    """Whether a file, links followed, lies in a folder or, for one in the Hub's cache, in that repository's `blobs`."""
    real, home = path.resolve(), folder.resolve()
    snapshots = [place.parent for place in (home, *home.parents) if place.parent.name == "snapshots"]
    return any(real.is_relative_to(place) for place in (home, *(place.parent / "blobs" for place in snapshots)))


@contextlib.contextmanager
def replacing(folder: Path, *, stale: tuple[str, ...] = ()) -> Iterator[Path]:
    """A new folder for files that replace those of `folder` at the end of the block, where nothing was raised in it.

    So whatever is written can be read there before anything old is lost, and once it is renamed it is what the folder
    holds: a process that is killed while it moves the files leaves the rest to `finish_replacing`. stale: files of the
    folder that go, too, where there is none in the new one. Raises CheckpointError where it cannot be written; the
    folder's files are then as they were.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finish_replacing(folder)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary:
            staged = Path(temporary) / "files"
            staged.mkdir()
            yield staged
            for name in {*stale} - {path.name for path in staged.iterdir()}:
                (staged / f"{name}{GONE}").touch()
            staged.rename(folder / SAVED)
        finish_replacing(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written ({error}); what was there is as it was.") from error


def finish_replacing(folder: Path) -> None:
    """Move what a killed process had saved whole to its place. Raises CheckpointError where that cannot be done."""
    saved = folder / SAVED
    if saved.is_symlink() or not saved.is_dir():
        return
    try:
        for name in CHECKPOINT_FILES:
            if (saved / f"{name}{GONE}").exists():
                (folder / name).unlink(missing_ok=True)
                (saved / f"{name}{GONE}").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):  # not among them, or another process has moved it
                os.replace(saved / name, folder / name)
        with contextlib.suppress(FileNotFoundError):
            saved.rmdir()
    except OSError as error:
        raise CheckpointError(
            f"{folder} was saved by a process that was killed; finishing that failed: {error}."
        ) from error


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
    if not (folder / name).is_file():
        return kind()
    return _validated(kind, folder, name, _read_json(folder, name))


def _validated(kind: type[Config], folder: Path, name: str, values: Any) -> Config:
    try:
        return kind.from_file(values)
    except ConfigError as error:
        raise CheckpointError(f"{folder / name}: {error}") from error
