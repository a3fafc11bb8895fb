"""Training that saves its state after every step."""

import hf_captioner.training.trainer


def main() -> int:
    hf_captioner.training.trainer.SAVE_EVERY = 1
    return hf_captioner.training.trainer.main()
