"""The page in its real server."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

SERVE = """
import socket, sys
look_up = socket.getaddrinfo
def noted(host, *rest, **more):
    with open(sys.argv[1], "a") as file:
        print(host, file=file)
    return look_up(host, *rest, **more)
socket.getaddrinfo = noted
from hf_captioner.cli import main
sys.exit(main(sys.argv[2:]))
"""
"""`hf-captioner`, with every host whose address is asked for written down."""


PLAIN = ("--backend", "torch")
"""So that a page opens without an export; `make demo` and the Space, which are tested, too, make one."""


@dataclass(frozen=True)
class Server:
    url: str
    folder: Path

    @property
    def hosts(self) -> set[str]:
        """Every host that the server asked the address of."""
        return set((self.folder / "hosts").read_text().split())

    @property
    def files(self) -> list[Path]:
        """What it keeps of its visitors, and of anything else."""
        found = os.walk(self.folder / "tmp")  # rglob fails when a folder vanishes meanwhile
        return [Path(folder, name) for folder, _, names in found for name in names]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


def demo(checkpoint: Path, folder: Path) -> contextlib.AbstractContextManager[Server]:
    """`hf-captioner demo` with this checkpoint; its uploads and logs are under the folder."""
    return serving(
        [sys.executable, "-c", SERVE, str(folder / "hosts"), "demo", "--model", str(checkpoint), *PLAIN], folder
    )


@contextlib.contextmanager
def serving(command: Sequence[str], folder: Path, cwd: Path | None = None) -> Iterator[Server]:
    """A command that serves the page, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "tmp").mkdir(exist_ok=True)
    own = {"TMPDIR": str(folder / "tmp"), "GRADIO_SERVER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | own, cwd=cwd)
    server = Server(f"http://127.0.0.1:{port}", folder)
    try:
        _wait_for(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert process.poll() is None, server.log
        try:
            if httpx.get(server.url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError(server.log)
