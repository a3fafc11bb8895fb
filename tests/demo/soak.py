"""A soak test: the page in its real server, and a crowd of visitors who upload good and bad images again and again.

Is each of them answered correctly? Does the server's memory stay level? Are their files deleted in the end?
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.demo.serving import Server, serving
from tests.demo.soak_requests import Request, all_requests, ask, leaks

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
from hf_captioner.demo import app, uploads
uploads.CLEANUP_INTERVAL, uploads.UPLOAD_TTL = 2, int(sys.argv[2])
app.serve(sys.argv[3], backend="torch")
"""
"""The page, which deletes uploads sooner than it does by default."""

TIMEOUT = 120
"""Seconds after which a visitor counts as not answered."""
RISE, SLACK = 0.10, 32
"""How much more memory the last third of the time may need than the middle third: a share of it, plus MB."""


@dataclass
class Report:
    """What was seen of a crowd; `faults` is empty where all is well."""

    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """For each kind of request, how long the visitors waited."""
    faults: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """MB that the server needed, every second."""
    most_files: int = 0
    lasted: float = 0

    def level(self) -> tuple[float, float]:
        """MB in the middle third of the time and in the last."""
        third = max(len(self.memory) // 3, 1)
        return statistics.fmean(self.memory[third : 2 * third]), statistics.fmean(self.memory[-third:])

    def __str__(self) -> str:
        lines = [f"{'kind':<28} {'answers':>8} {'median s':>9} {'99th s':>8}"]
        for kind, seconds in [
            *sorted(self.seconds.items()),
            ("all", [s for each in self.seconds.values() for s in each]),
        ]:
            late = sorted(seconds)[int(0.99 * (len(seconds) - 1))]
            lines.append(f"{kind:<28} {len(seconds):>8} {statistics.median(seconds):>9.2f} {late:>8.2f}")
        middle, last = self.level()
        lines.append(
            f"memory: {self.memory[0]:.0f} MB at first, {max(self.memory):.0f} MB at most, "
            f"{middle:.0f} MB in the middle third, {last:.0f} MB in the last"
        )
        lines.append(f"files of visitors: {self.most_files} at most; the crowd stayed {self.lasted:.0f} s")
        lines += [f"FAULT, {count} times: {fault}" for fault, count in Counter(self.faults).most_common(30)]
        return "\n".join(lines)


async def visit(
    http: httpx.AsyncClient, number: int, requests: Iterator[Request], until: float, report: Report
) -> None:
    """One visitor, who comes back until the end, each time with the next request."""
    chance = random.Random(number)
    visits = 0
    while time.monotonic() < until:
        request, visits = next(requests), visits + 1
        images = [image.as_new(number << 32 | visits) for image in request.images]
        began = time.monotonic()
        try:
            answer = await asyncio.wait_for(ask(http, request.endpoint, images, request.text), TIMEOUT)
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            report.faults.append(f"{request.kind}: not answered: {type(error).__name__} {error}")
        else:
            report.seconds[request.kind].append(time.monotonic() - began)
            if not request.correct(answer) or leaks(answer):
                report.faults.append(f"{request.kind}: a wrong answer: {str(answer.value)[:200]}")
        await asyncio.sleep(chance.uniform(0, 1))


@contextlib.asynccontextmanager
async def watched(server: Server, process: int, report: Report, own: set[Path]) -> AsyncIterator[None]:
    """Write the server's memory and files down, every second, until the end of the block."""

    async def watch() -> None:
        while True:
            try:
                report.memory.append(memory_of(process))
            except OSError as error:
                report.faults.append(f"the server has ended: {error}")
                return
            report.most_files = max(report.most_files, len(files_of(server) - own))
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def files_of(server: Server) -> set[Path]:
    """Its uploads; unlike `Server.files` also while it deletes their folders."""
    return {Path(folder, name) for folder, _, names in os.walk(server.folder / "tmp") for name in names}


def memory_of(process: int) -> float:
    """MB of memory that a process has now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1024


async def crowd(server: Server, process: int, visitors: int, seconds: float, kept: float) -> Report:
    """Let the visitors come for this many seconds, then wait until their files must be gone."""
    report, own = Report(), files_of(server)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=visitors)
    async with httpx.AsyncClient(base_url=server.url, timeout=TIMEOUT, limits=limits) as http:
        requests, began = await all_requests(http), time.monotonic()
        order = itertools.cycle(random.Random(0).sample(requests, len(requests)))  # so that each is made
        async with watched(server, process, report, own):
            await asyncio.gather(*(visit(http, each, order, began + seconds, report) for each in range(visitors)))
        report.lasted = time.monotonic() - began
    last = time.monotonic() + kept + 10
    while files_of(server) - own and time.monotonic() < last:
        await asyncio.sleep(0.5)
    left = files_of(server) - own
    report.faults += [f"{len(left)} files of visitors are left"] * bool(left)
    report.faults += [f"{len(own - files_of(server))} files of the page's own are gone"] * bool(own - files_of(server))
    middle, end = report.level()
    if end > middle * (1 + RISE) + SLACK:
        report.faults.append(f"the memory rises: {middle:.0f} MB in the middle third, {end:.0f} MB in the last")
    return report


def soak(model: Path, folder: Path, visitors: int, seconds: float, kept: int = 120) -> Report:
    """A server and its crowd; kept: seconds the server keeps uploads, longer than anybody waits for an answer."""
    command = [sys.executable, "-c", SERVE, str(folder / "pid"), str(kept), str(model.resolve())]
    with serving(command, folder) as server:
        report = asyncio.run(crowd(server, int((folder / "pid").read_text()), visitors, seconds, kept))
    # An error in a thread or a background task of the server appears only in its log.
    report.faults += [f"in the log: {line}" for line in server.log.splitlines() if "Error: " in line]
    report.faults += ["files are left when the server has ended"] * bool(files_of(server))
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--visitors", type=int, default=100)
    parser.add_argument("--model", type=Path, default=ROOT / "hf_captioner" / "checkpoint", metavar="DIR")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(options.model, Path(folder), options.visitors, 60 * options.minutes)
    print(f"{options.visitors} visitors, {os.cpu_count()} cores, {options.model.name}\n{report}")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
