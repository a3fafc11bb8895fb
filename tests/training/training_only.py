"""`hf-captioner`, whose `train` ends with the training: for tests of that alone."""

from hf_captioner import cli
from hf_captioner.training.finish import Finish


def main() -> int:
    leave_out_the_rest()
    return cli.main()


def leave_out_the_rest() -> None:
    Finish.before = lambda self, init: 0.0  # type: ignore[method-assign]
    Finish.run = lambda self: None  # type: ignore[method-assign]
