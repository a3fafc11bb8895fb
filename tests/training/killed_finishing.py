"""`hf-captioner`, killed right after a function that follows the training: what it did is done, and not noted."""

import os
import signal
from typing import Any

from hf_captioner import cli
from hf_captioner.training import finish


def main() -> int:
    name = os.environ["KILL_AFTER"]
    whole = getattr(finish, name)

    def kill(*given: Any, **named: Any) -> None:
        whole(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(finish, name, kill)
    return cli.main()
