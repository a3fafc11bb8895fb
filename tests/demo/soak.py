"""A soak test: the page in its real server, and a crowd of visitors who upload good and bad images again and again.

Is each of them answered correctly? Does the server's memory stay level? Are their files deleted in the end?
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import random
import statistics
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.conftest import generated
from tests.demo.serving import Server, serving

ROOT = Path(__file__).resolve().parents[2]
SERVE = """
import os, pathlib, sys
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
from hf_captioner.demo import app, uploads
uploads.CLEANUP_INTERVAL, uploads.UPLOAD_TTL = 2, int(sys.argv[2])
app.serve(sys.argv[3])
"""
"""The page, which deletes uploads sooner than it does by default."""

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
MARKUP = "<img src=x onerror=alert(1)>"
NOT_AN_IMAGE = "This file isn't an image"
TIMEOUT = 120
"""Seconds after which a visitor counts as not answered."""
RISE, SLACK = 0.10, 32
"""How much more memory the last third of the time may need than the middle third: a share of it, plus MB."""
PRIVATE = ("<script", "Traceback", "/tmp", "hf-captioner-", "site-packages")
"""What no message may hold: a file name that is markup, and the server's paths."""


@dataclass(frozen=True)
class ImageFile:
    name: str
    content: bytes

    def as_new(self, number: int) -> "ImageFile":
        """The same image; for the server a file unlike all others."""
        return ImageFile(self.name, self.content + number.to_bytes(8, "big") if self.content else b"")


@dataclass(frozen=True)
class Answer:
    ok: bool
    value: Any
    """What the endpoint returns, or one sentence that says why it does not."""


@dataclass(frozen=True)
class Request:
    """What a visitor does, and which answer is correct."""

    kind: str
    endpoint: str
    images: tuple[ImageFile, ...]
    correct: Callable[[Answer], bool]
    text: str | None = None


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


def as_file(name: str, image: Image.Image, **how: Any) -> ImageFile:
    file = io.BytesIO()
    image.save(file, **how)
    return ImageFile(name, file.getvalue())


def _bomb() -> bytes:
    """A PNG whose header promises ten thousand million pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def good_images() -> list[ImageFile]:
    noise = Image.effect_noise((1600, 1200), 60).convert("RGB")
    return [
        *(ImageFile(path.name, path.read_bytes()) for path in sorted((ROOT / "space" / "examples").glob("*.jpg"))),
        as_file(f"{MARKUP}.png", generated(1), format="PNG"),
        as_file("noise.jpg", noise, format="JPEG", quality=80),
    ]


def bad_images() -> dict[str, tuple[ImageFile, str]]:
    """Kind -> a file, and how the sentence begins that says what is wrong with it."""
    cut = as_file("cut.jpg", generated(2, (640, 480)), format="JPEG")
    return {
        "cut short": (ImageFile(cut.name, cut.content[: len(cut.content) // 2]), "This photo is damaged"),
        "a text": (ImageFile("text.jpg", b"This is not an image."), NOT_AN_IMAGE),
        "empty": (ImageFile("empty.jpg", b""), "The file is empty"),
        "EPS": (ImageFile("drawing.eps", EPS), NOT_AN_IMAGE),
        "a bomb": (ImageFile("bomb.png", _bomb()), "This photo has too many pixels"),
    }


def says(sentence: str) -> Callable[[Answer], bool]:
    return lambda answer: not answer.ok and str(answer.value).startswith(sentence)


def captioned(text: str) -> Callable[[Answer], bool]:
    return lambda answer: answer.ok and answer.value["caption"] == text


def batch_of(first: str, last: str) -> Callable[[Answer], bool]:
    """The answer to a batch whose image in the middle is bad."""

    def correct(answer: Answer) -> bool:
        if not answer.ok or len(answer.value) != 3:
            return False
        begin, bad, end = answer.value
        return [begin.get("caption"), end.get("caption")] == [first, last] and bad["error"].startswith(NOT_AN_IMAGE)

    return correct


async def ask(http: httpx.AsyncClient, endpoint: str, images: Sequence[ImageFile], text: str | None = None) -> Answer:
    """Upload images and wait for the answer, as any program would."""
    uploaded = await http.post("/gradio_api/upload", files=[("files", (each.name, each.content)) for each in images])
    uploaded.raise_for_status()
    files = [
        {"path": path, "orig_name": each.name, "meta": {"_type": "gradio.FileData"}}
        for path, each in zip(uploaded.json(), images, strict=True)
    ]
    data = [files if endpoint == "caption_batch" else files[0], *([] if text is None else [text])]
    joined = await http.post(f"/gradio_api/call/{endpoint}", json={"data": data})
    joined.raise_for_status()
    events = await http.get(f"/gradio_api/call/{endpoint}/{joined.json()['event_id']}")
    events.raise_for_status()
    for block in events.text.split("\n\n"):
        event, _, value = block.partition("\ndata: ")
        if event == "event: complete":
            return Answer(True, json.loads(value)[0])
        if event == "event: error":
            error = json.loads(value)
            return Answer(False, error["error"] if isinstance(error, dict) else error)
    raise ValueError(f"no answer among the events: {events.text[:200]!r}")


async def all_requests(http: httpx.AsyncClient) -> list[Request]:
    """Every request of a visitor; correct is what a visitor who is alone gets."""
    good, bad = good_images(), bad_images()
    found, texts = [], []
    for image in good:
        answer = await ask(http, "caption", [image])
        texts.append(answer.value["caption"])
        found.append(Request("an image", "caption", (image,), captioned(texts[-1])))
    found += [Request(kind, "caption", (image,), says(error)) for kind, (image, error) in bad.items()]
    found += [Request("continued with markup", "continue", (good[0],), says("The model doesn't know "), MARKUP)]
    damaged, error = bad["cut short"]
    found += [Request("continued, a bad image", "continue", (damaged,), says(error), "a")]
    middle = ImageFile("<script>x</script>.png", b"Nor is this.")
    mixed = (good[1], middle, good[2])
    return [*found, Request("a batch, one bad", "caption_batch", mixed, batch_of(texts[1], texts[2]))]


def leaks(answer: Answer) -> list[str]:
    """What of PRIVATE an answer's messages hold."""
    each = answer.value if isinstance(answer.value, list) else [answer.value]
    sentences = [one.get("error", "") if isinstance(one, dict) else str(one) for one in each]
    return [word for word in PRIVATE for sentence in sentences if word in sentence]


async def visit(
    http: httpx.AsyncClient, number: int, requests: Sequence[Request], until: float, report: Report
) -> None:
    """One visitor, who comes back until the end."""
    chance = random.Random(number)
    visits = 0
    while time.monotonic() < until:
        request, visits = chance.choice(requests), visits + 1
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
        async with watched(server, process, report, own):
            await asyncio.gather(*(visit(http, each, requests, began + seconds, report) for each in range(visitors)))
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
