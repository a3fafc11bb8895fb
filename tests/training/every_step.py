"""Training that saves its state after every step."""

import hf_captioner.training.trainer
from hf_captioner import cli
from tests.training.training_only import leave_out_the_rest


def main() -> int:
    leave_out_the_rest()
    hf_captioner.training.trainer.SAVE_EVERY = 1
    return cli.main()
