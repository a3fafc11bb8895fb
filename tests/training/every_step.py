"""Training that saves its state after every step."""

import hf_captioner.training.trainer
from hf_captioner import cli


def main() -> int:
    hf_captioner.training.trainer.SAVE_EVERY = 1
    return cli.main()
