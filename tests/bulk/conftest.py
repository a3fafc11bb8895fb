"""A machine on which Ray never ran."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def fresh() -> Iterator[dict[str, str]]:
    """The environment of a new user's machine on which Ray never ran; Ray's sockets need a short path."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    for name in ("home", "t"):
        Path(folder, name).mkdir()
    yield {
        "HOME": f"{folder}/home",
        "TMPDIR": f"{folder}/t",
        "RAY_TMPDIR": f"{folder}/t",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
    }
    shutil.rmtree(folder)
