"""What the commands of this room share: flags, the captioner to measure, messages on stderr, errors as one sentence."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CaptionerError, CheckpointError, ConfigError
from hf_captioner.hub.packaged import bundled_checkpoint


def command_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every command of this room has."""
    parser = argparse.ArgumentParser(prog=f"python -m hf_captioner.training.{module}", description=description)
    parser.add_argument("--data", required=True, help="images and captions: a folder, a file, or a Hub data set's id")
    parser.add_argument("--model", metavar="ID", help="a folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), or a device of PyTorch's")
    return parser


def load_captioner(options: argparse.Namespace) -> ImageCaptioner:
    """The captioner that `--model` and `--device` ask for."""
    return ImageCaptioner.from_pretrained(options.model, device=options.device)


def checkpoint_folder(model: str | None) -> Path:
    """The local folder that results are written into. Raises CheckpointError for a Hub id."""
    folder = Path(model) if model else bundled_checkpoint()
    if not folder.is_dir():
        raise CheckpointError(
            f"Results are written into a local checkpoint folder; {folder} is none. Download it first."
        )
    return folder


def single_data_set(command: str, given: Sequence[str]) -> str:
    """The one data set that was given. Raises ConfigError for several."""
    if len(given) != 1:
        raise ConfigError(f"{command} takes one data set; found {len(given)} ({', '.join(given)}); give one at a time.")
    return given[0]


def data_set_name(data: str) -> str:
    """What the card calls a data set where nothing else is said: the name of its folder, its file or its repository."""
    return Path(data).resolve().stem


def run_command(name: str, command: Callable[[], object]) -> int:
    """Run a command; an error that a user can cause is one sentence on stderr.

    Returns the exit code: 0, 1 where the work could not be done, 2 for settings that make no sense.
    """
    _log_to_stderr()
    try:
        command()
    except (CaptionerError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def _log_to_stderr() -> None:
    """Show the package's messages on stderr, above any progress bar, unless the caller has set up logging."""
    logger = logging.getLogger("hf_captioner")
    if not logger.hasHandlers():
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
