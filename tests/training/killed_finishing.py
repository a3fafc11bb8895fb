"""`hf-captioner`, which tunes on ten images, and is killed right after the function that KILL_AFTER names, if it does:
what that did is done, and not noted."""

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
