"""Weights between two captioners: `python -m train.interpolate FIRST SECOND --share 0.9 --out DIR`.

SECOND is FIRST trained further, perhaps with more words. What it forgot comes back in part, for little of what it
learned (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). The generation settings are FIRST's, the rest
is SECOND's; what was measured of its weights is dropped.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError
from hf_captioner.training.command import run_command
from hf_captioner.training.tune_generation import at_image_size


def between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """share * second + (1 - share) * first; a row that only `second` has, of a new word, stays as it is.

    Raises ConfigError where they are no weights of one architecture.
    """
    differ = [name for name in second if name not in first or first[name].shape[1:] != second[name].shape[1:]]
    fewer = [name for name in first if name not in second or len(second[name]) < len(first[name])]
    if differ or fewer:
        raise ConfigError(f"The two are not of one architecture: they differ in {(differ + fewer)[0]}.")
    mixed = {name: tensor.clone() for name, tensor in second.items()}
    for name, tensor in first.items():
        mixed[name][: len(tensor)].lerp_(tensor, 1 - share)
    return mixed


def run(options: argparse.Namespace) -> None:
    if not 0 <= options.share <= 1:
        raise ConfigError(f"--share is {options.share}; expected a number from 0, all FIRST's, to 1, all SECOND's.")
    first, second = (ImageCaptioner.from_pretrained(name, device="cpu") for name in (options.first, options.second))
    if second.tokenizer.words[: len(first.tokenizer)] != first.tokenizer.words:
        raise ConfigError("SECOND's words do not begin with FIRST's; expected FIRST trained further.")
    captioner = at_image_size(second, second.config.image_size)
    captioner.encoder.load_state_dict(between(first.encoder.state_dict(), second.encoder.state_dict(), options.share))
    captioner.decoder.load_state_dict(between(first.decoder.state_dict(), second.decoder.state_dict(), options.share))
    penalty = first.generation_config.length_penalty if options.length_penalty is None else options.length_penalty
    captioner.generation_config = dataclasses.replace(first.generation_config, length_penalty=penalty)
    captioner.save_pretrained(options.out)
    print(f"The captioner lies in {options.out}.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m train.interpolate", description=__doc__)
    parser.add_argument("first", metavar="FIRST", help="a captioner's folder or Hub id")
    parser.add_argument("second", metavar="SECOND", help="one that was trained further from it")
    parser.add_argument("--share", type=float, required=True, help="SECOND's share of each weight, from 0 to 1")
    parser.add_argument("--length-penalty", type=float, metavar="L", help="of the search, in place of FIRST's")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the captioner")
    options = parser.parse_args(argv)
    return run_command("interpolate", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
