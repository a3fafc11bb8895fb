"""`hf-captioner`, which tunes on ten images, killed right after a function that follows the training if KILL_AFTER names
one: what it did is done, and not noted."""

import os
import signal
from typing import Any

from hf_captioner import cli
from hf_captioner.training import finish


def main() -> int:
    finish.FEWEST_TO_TUNE = 10
    name = os.environ.get("KILL_AFTER")
    if name is None:
        return cli.main()
    whole = getattr(finish, name)

    def kill(*given: Any, **named: Any) -> None:
        whole(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(finish, name, kill)
    return cli.main()
