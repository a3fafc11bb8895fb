"""The page's own questions in its real server, asked as its JavaScript asks them."""

import asyncio
import contextlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from hf_captioner import Caption, ImageCaptioner
from hf_captioner.caption import TOLERANCE
from hf_captioner.demo.limits import MAX_FILE_BYTES
from hf_captioner.demo.markup import BROWSER, EXAMPLES
from hf_captioner.demo.photo import pixels_of
from hf_captioner.hub.packaged import data_path
from hf_captioner.images import read_pixels
from tests.conftest import generated
from tests.demo.asking import answered, file_of, image_in, question, refused
from tests.demo.serving import Server, demo
from tests.hub.standin_hub import StandInHub

ELSEWHERE = {"X-Forwarded-For": "8.8.8.8"}
"""As a proxy passes on what somebody asks who does not sit at the machine."""
UPS = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%5c", "....//", "..%252f", "..;/")
pushes = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/page/", timeout=60) as page:
        yield page


def assert_same(found: dict[str, Any], caption: Caption, *, attention: bool = True) -> None:
    """The answer is what Python's captioner gives; only the alternatives are fewer."""
    assert (found["caption"], found["finished"]) == (caption.text, caption.finished)
    assert [word["text"] for word in found["words"]] == [word.text for word in caption.words]
    for word, same in zip(found["words"], caption.words, strict=True):
        assert word["probability"] == pytest.approx(same.probability, abs=TOLERANCE)
        assert {text for text, _ in word["alternatives"]} <= {text for text, _ in same.alternatives}
        assert "<end>" not in dict(word["alternatives"])
        assert ("attention" in word) == attention
        if attention:
            torch.testing.assert_close(
                torch.tensor(word["attention"]), torch.from_numpy(same.attention), rtol=0, atol=TOLERANCE
            )


def test_a_photo_is_captioned_and_comes_back_to_be_kept(page: httpx.Client, saved_captioner: ImageCaptioner) -> None:
    content = file_of(generated(3, (1500, 900)), "JPEG")
    answer = answered(page.post("photo", content=content))
    (caption,) = answer["captions"]
    assert_same(caption, saved_captioner.caption(content))
    assert image_in(answer["photo"]["image"]).size == (1280, 768)
    pixels = pixels_of(answer["photo"]["input"], saved_captioner.config)
    assert torch.equal(pixels, read_pixels(content, saved_captioner.config))


def test_of_a_photo_that_the_page_has_other_captions_are_asked(
    page: httpx.Client, saved_captioner: ImageCaptioner
) -> None:
    content = file_of(generated(4, (700, 500)), "JPEG")
    photo = answered(page.post("photo", content=content))["photo"]

    def again(**asked: Any) -> list[dict[str, Any]]:
        captions: list[dict[str, Any]] = answered(page.post("again", json=question(photo["input"], **asked)))[
            "captions"
        ]
        return captions

    assert_same(again()[0], saved_captioner.caption(content))
    steered = saved_captioner.caption(content, prefix="two dog", bad_words=["grass", "wall"])
    assert_same(again(prefix="two dog", bad_words="grass, wall")[0], steered)
    assert len({caption["caption"] for caption in again(several=True)}) == 3
    assert len(again(length="Longer", words=9)[0]["words"]) >= 11
    covered = again(covered=[1] * 1024)[0]
    flat = Image.new("RGB", (64, 64), tuple(photo["colour"]))
    assert covered["caption"] == saved_captioner.caption(flat).text
    assert again(covered=[0] * 1024) == again()


def test_a_photo_of_many_comes_back_small(page: httpx.Client, saved_captioner: ImageCaptioner) -> None:
    content = file_of(generated(5, (900, 600)))
    answer = answered(page.post("row", content=content))
    assert image_in(answer["thumbnail"]).size == (192, 128)
    assert_same(answer["caption"], saved_captioner.caption(content), attention=False)


def test_a_cameras_frame_is_captioned(page: httpx.Client, saved_captioner: ImageCaptioner) -> None:
    content = file_of(generated(6, (640, 480)), "WEBP")
    assert_same(answered(page.post("frame", content=content))["caption"], saved_captioner.caption(content))


@pytest.mark.parametrize("key", EXAMPLES)
def test_each_example_is_there_with_its_caption(key: str, page: httpx.Client, saved_captioner: ImageCaptioner) -> None:
    path = data_path("space") / "examples" / EXAMPLES[key]
    answer = answered(page.get(f"example/{key}"))
    assert_same(answer["captions"][0], saved_captioner.caption(path))
    assert answer["photo"]["name"] == path.name
    again = answered(page.post("again", json=question(answer["photo"]["input"])))
    assert_same(again["captions"][0], saved_captioner.caption(path))
    picture = page.get(f"example/{key}.jpg")
    assert picture.headers["content-type"] == "image/jpeg" and picture.content == path.read_bytes()


def test_an_example_that_is_not_there_is_one_sentence(page: httpx.Client) -> None:
    for key in ("no", "cat.png", "%00", "..%2f..%2fapp.py", "<b>", "chelsea.jpg"):
        answer = page.get(f"example/{key}")
        assert answer.status_code == 404 and "root" not in answer.text, key
    assert "no such example" in refused(page.get("example/no"))


@pytest.fixture(scope="module")
def hub(
    saved_captioner: ImageCaptioner, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A page whose owner has a model of their own, in a Hub that is not the real one."""
    folder = tmp_path_factory.mktemp("hub")
    with StandInHub() as hub, pytest.MonkeyPatch.context() as patch:
        hub.use(patch, folder / "home")
        saved_captioner.push_to_hub("me/secret", private=True)
        saved_captioner.push_to_hub("me/open")
        for name, value in hub.environment(folder / "home").items():
            patch.setenv(name, value)
        with demo(checkpoint, folder) as server, httpx.Client(base_url=f"{server.url}/page/", timeout=60) as page:
            yield page
        assert not list((folder / "home").rglob("models--me--open")), "nor is anything kept of a model"


@pushes
def test_another_model_captions_the_photo(
    hub: httpx.Client, saved_captioner: ImageCaptioner, checkpoint: Path, image_path: Path
) -> None:
    content, caption = image_path.read_bytes(), saved_captioner.caption(image_path)
    for name, headers in (("me/open", ELSEWHERE), (str(checkpoint), {})):
        answer = hub.post("compare", params={"model": f" {name} "}, content=content, headers=headers)
        assert_same(answered(answer)["caption"], caption)
    answer = hub.post("compare", params={"model": str(checkpoint)}, content=b"no image")
    assert answer.status_code == 400 and "isn't an image" in refused(answer)


@pushes
def test_a_model_that_does_not_load_is_one_sentence_that_tells_nothing_of_this_machine(
    hub: httpx.Client, checkpoint: Path, image_path: Path
) -> None:
    names = ["nobody/nothing", "me/secret", str(checkpoint), "/etc", "..", "", "\0", "x" * 5000, "<b>/x", "me\0/a"]
    said = set()
    for name in names:
        answer = hub.post(
            "compare", params={"model": name}, content=image_path.read_bytes(), headers={**ELSEWHERE, "Cookie": "x"}
        )
        assert answer.status_code == 400, name
        shown = name[:100].replace("\0", "\\u0000")
        said.add(answer.json()["error"].replace(shown, "", 1))
        assert len(answer.json()["error"]) < 300
    assert len(said) == 1
    nobody = hub.post("compare", params={"model": "nobody/nothing"}, content=image_path.read_bytes())
    assert nobody.status_code == 400 and "nobody/nothing" in nobody.json()["error"]


def test_twenty_at_once_each_get_their_own_answer(server: Server, saved_captioner: ImageCaptioner) -> None:
    contents = [file_of(generated(number)) for number in range(20)]

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=f"{server.url}/page/", timeout=120) as page:
            kinds = ("photo", "row", "frame")
            asked = (page.post(kinds[number % 3], content=content) for number, content in enumerate(contents))
            return await asyncio.gather(*asked)

    answers = [answered(answer) for answer in asyncio.run(ask())]
    captions = [answer.get("caption") or answer["captions"][0] for answer in answers]
    for number, (found, caption) in enumerate(zip(captions, saved_captioner.caption(contents), strict=True)):
        assert_same(found, caption, attention=number % 3 != 1)


def test_nothing_of_a_visitor_is_written_to_disk(server: Server, page: httpx.Client) -> None:
    content = file_of(generated(7, (2000, 1500)))

    def pieces() -> Iterator[bytes]:
        yield content[:-100]
        assert set(server.files) <= before, "nor before the file is whole"
        yield content[-100:]

    before = set(server.files)
    photo = answered(page.post("photo", content=pieces()))["photo"]
    for kind in ("row", "frame"):
        answered(page.post(kind, content=content))
    answered(page.post("again", json=question(photo["input"])))
    page.post("photo", content=b"no image")
    assert set(server.files) <= before


def test_a_file_that_is_too_large_is_refused(page: httpx.Client, server: Server) -> None:
    before = set(server.files)
    for kind in ("photo", "row", "compare"):
        answer = page.post(kind, content=bytes(MAX_FILE_BYTES + 1))
        assert answer.status_code == 413 and "at most 20 MB" in refused(answer)
        pieces = (bytes(1 << 16) for _ in range((MAX_FILE_BYTES >> 16) + 1))
        assert page.post(kind, content=pieces).status_code == 413, "nor is its length believed"
    for kind in ("frame", "again"):
        assert page.post(kind, content=bytes(MAX_FILE_BYTES + 1)).status_code == 413
    assert set(server.files) <= before


def test_no_file_outside_of_the_pages_own_is_served(server: Server, page: httpx.Client) -> None:
    for path in BROWSER.glob("*.*"):
        assert page.get(path.name).content == path.read_bytes()
    assert page.get("page.js").headers["cache-control"] == "no-cache", "a new version is seen at once"
    assert "javascript" in page.get("page.js").headers["content-type"]
    outside = [BROWSER.parent / "app.py", BROWSER.parents[1] / "cli.py", Path("/etc/passwd"), server.folder / "log"]
    forms = [f"{up * depth}{path.name}" for path in outside[:2] for up in UPS for depth in (1, 2, 3)]
    forms += [f"{up * 12}{str(path)[1:]}" for path in outside for up in UPS]
    forms += [str(path).replace("/", slash) for path in outside for slash in ("/", "%2f", "//", "%252f", "%5c")]
    forms += ["", ".", "page.js/../../app.py", "page.js%00.py", "example/..%2f..%2fapp.py", "a" * 5000, "%00", "%ff"]
    secrets = [path.read_bytes()[:60] for path in outside if path.exists() and path.stat().st_size]
    for form in forms:
        with contextlib.closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)) as sent:
            sent.request("GET", f"/page/{form}")
            answer = sent.getresponse()
            assert answer.status >= 400, form
            content = answer.read()
            assert not any(secret in content for secret in secrets), form
