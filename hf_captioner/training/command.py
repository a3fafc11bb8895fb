"""What the commands of this room share: flags, the captioner to measure, messages on stderr, errors as one sentence."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import CaptionerError, CheckpointError, ConfigError, MissingExtraError, one_line, require_extra
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.training.data import Record, first_of_each, readable_records
from hf_captioner.training.data_sets import given_data_sets, load_split
from hf_captioner.training.known_words import known_words

TRAINING_PACKAGES = (
    *("accelerate", "datasets", "evaluate", "matplotlib", "pycocoevalcap", "skimage", "tensorboard", "yaml"),
)
"""What the extra `train` brings."""

logger = logging.getLogger(__name__)


def command_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every command of this room has."""
    parser = argparse.ArgumentParser(prog=f"python -m hf_captioner.training.{module}", description=description)
    data = "images and captions: a folder, a file, or a Hub data set's id; or several of them"
    parser.add_argument("--data", required=True, nargs="+", help=data)
    name = "what each data set is called in what is printed (default: its Hub id or its folder)"
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help=name)
    parser.add_argument("--model", metavar="ID", help="a folder or Hub id; without it the bundled checkpoint")
    parser.add_argument("--splits", type=Path, help="splits.json of the training run, where the data names no splits")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is one), or a device of PyTorch's")
    add_data_permissions(parser)
    return parser


def add_data_permissions(parser: argparse.ArgumentParser) -> None:
    """The flags by which a user allows what data of others may not do by itself."""
    outside = "also read images that the data names outside of its own folder (default: refuse)"
    parser.add_argument("--allow-outside-paths", action="store_true", help=outside)
    broken = "leave out images that cannot be read, and name them (default: stop, and name them)"
    parser.add_argument("--skip-broken-images", action="store_true", help=broken)


def load_captioner(options: argparse.Namespace) -> ImageCaptioner:
    """The captioner that `--model` and `--device` ask for."""
    return ImageCaptioner.from_pretrained(options.model, device=options.device, backend="torch")


def checkpoint_folder(model: str | None) -> Path:
    """The local folder that results are written into. Raises CheckpointError for a Hub id."""
    folder = Path(model) if model else bundled_checkpoint()
    if not folder.is_dir():
        raise CheckpointError(
            f"Results are written into a local checkpoint folder; {folder} is none. Download it first."
        )
    return folder


def measured_split(
    options: argparse.Namespace, captioner: ImageCaptioner, split: str = "validation", limit: int | None = None
) -> list[Record]:
    """The records of a split of all data sets given, the first `limit` of each where it is not None.

    The log tells words that the captioner lacks. Raises ConfigError as `given_data_sets`, DataError as `load_split`,
    `readable_records` and `known_words` do.
    """
    found = load_split(
        given_data_sets(options.data, options.dataset),
        split,
        split_file=options.splits,
        model=options.model,
        allow_outside_paths=options.allow_outside_paths,
    )
    records = readable_records(first_of_each(found, limit), skip_broken=options.skip_broken_images)
    words = known_words(records, captioner.tokenizer, split)
    if words.unknown:
        logger.info("%s captions: %s", "training" if split == "train" else split, words)
    return records


def run_command(name: str, command: Callable[[], object]) -> int:
    """Run a command; an error that a user can cause is one sentence on stderr.

    Returns the exit code: 0, 1 where the work could not be done, 2 for settings that make no sense.
    """
    _log_to_stderr()
    try:
        require_extra(name, "train", *TRAINING_PACKAGES)
        command()
    except MissingExtraError as error:
        print(error, file=sys.stderr)  # it names the command itself
        return 2
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
        tqdm.write(one_line(self.format(record)), file=sys.stderr)
