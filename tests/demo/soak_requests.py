"""What the visitors of `soak.py` do: images good and bad, each with the answer that is correct."""

import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.conftest import generated
from tests.demo.asking import question

ROOT = Path(__file__).resolve().parents[2]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
MARKUP = "<img src=x onerror=alert(1)>"
NOT_AN_IMAGE = "This file isn't an image"
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


def sentences(answer: Answer) -> list[str]:
    """The captions in an answer of the page's own."""
    if not answer.ok:
        return []
    return [caption["caption"] for caption in answer.value.get("captions") or [answer.value["caption"]]]


def same_as(texts: Sequence[str]) -> Callable[[Answer], bool]:
    return lambda answer: bool(texts) and sentences(answer) == list(texts)


def batch_of(first: str, last: str) -> Callable[[Answer], bool]:
    """The answer to a batch whose image in the middle is bad."""

    def correct(answer: Answer) -> bool:
        if not answer.ok or len(answer.value) != 3:
            return False
        begin, bad, end = answer.value
        return [begin.get("caption"), end.get("caption")] == [first, last] and bad["error"].startswith(NOT_AN_IMAGE)

    return correct


async def ask(http: httpx.AsyncClient, endpoint: str, images: Sequence[ImageFile], text: str | None = None) -> Answer:
    """Wait for the answer to images and a text, as the page does or, of another endpoint than the page's, a program."""
    asked = ask_page if endpoint.startswith("page/") else ask_endpoint
    return await asked(http, endpoint, images, text)


async def ask_page(http: httpx.AsyncClient, endpoint: str, images: Sequence[ImageFile], text: str | None) -> Answer:
    """With a text: a photo first, then of half of it a caption that begins with the text."""
    (image,) = images
    answer = await http.post("/page/photo" if text is not None else f"/{endpoint}", content=image.content)
    if answer.status_code == 200 and text is not None:
        half = [int(cell % 32 < 16) for cell in range(32 * 32)]
        asked = question(answer.json()["photo"]["input"], prefix=text, covered=half)
        answer = await http.post(f"/{endpoint}", json=asked)
    value = answer.json()
    return Answer(True, value) if answer.status_code == 200 else Answer(False, value["error"])


async def ask_endpoint(http: httpx.AsyncClient, endpoint: str, images: Sequence[ImageFile], text: str | None) -> Answer:
    """Upload images, and wait for the events."""
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
        found.append(Request("the page, a photo", "page/photo", (image,), same_as(texts[-1:])))
        found.append(Request("the page, a row", "page/row", (image,), same_as(texts[-1:])))
        again = sentences(await ask(http, "page/again", [image], "a"))
        found.append(Request("the page, again", "page/again", (image,), same_as(again), "a"))
    for kind, (image, error) in bad.items():
        found.append(Request(kind, "caption", (image,), says(error)))
        found.append(Request(f"the page, {kind}", "page/row", (image,), says(error)))
    found += [
        Request(f"{kind} with markup", endpoint, (good[0],), says("The model doesn't know "), MARKUP)
        for kind, endpoint in (("continued", "continue"), ("the page, again", "page/again"))
    ]
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
