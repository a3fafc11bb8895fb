"""The page in its real server and a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

from hf_captioner import ImageCaptioner
from hf_captioner.demo.static_page import write_static_page
from tests.conftest import generated
from tests.demo.browsing import CHROMIUM, expect_caption, give
from tests.demo.serving import Server, demo


@pytest.fixture(scope="session")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with demo(checkpoint, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    camera = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(server: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a browser; at the end it must have asked no other host, logged no error and fit the window."""
    width, height = request.param
    faults: list[str] = []

    def note(sent: Request) -> None:
        if not sent.url.startswith((server.url, "data:", "blob:")):
            faults.append(sent.url)

    def answer(dialog: Dialog) -> None:
        if dialog.type != "beforeunload":  # a batch would be lost
            faults.append(dialog.message)
        dialog.accept()

    window = {"width": width, "height": height}
    page = browser.new_page(viewport=window, has_touch=width < 600, reduced_motion="reduce")
    page.on("request", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", answer)
    page.set_default_timeout(20_000)
    page.goto(server.url)
    page.locator("#panel-caption .word").first.wait_for()  # the first example is captioned
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()
    assert not faults


@pytest.fixture
def bad_path(tmp_path: Path) -> Path:
    path = tmp_path / "<b>bad<.jpg"
    path.write_text("not an image")
    return path


@pytest.fixture
def captioned(page: Page, saved_captioner: ImageCaptioner, tmp_path: Path) -> Page:
    """The page with a visitor's photo captioned."""
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    generated(3).save(path)
    give(page, path)
    expect_caption(page, saved_captioner.caption(generated(3)).text)
    return page


@pytest.fixture(scope="session")
def static_page(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as a folder, with the tiny checkpoint; do not write into it."""
    folder = tmp_path_factory.mktemp("static") / "page"
    write_static_page(folder, str(checkpoint))
    return folder


@pytest.fixture(scope="session")
def in_python(checkpoint: Path, static_page: Path) -> ImageCaptioner:
    """What the static page computes, computed by Python."""
    captioner = ImageCaptioner.from_pretrained(checkpoint, backend="torch")
    captioner.take_export(static_page / "model" / "onnx", torch.int8)
    return captioner
