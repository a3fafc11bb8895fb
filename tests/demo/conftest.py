"""The page in its real server and a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from tests.conftest import generated
from tests.demo.browsing import CHROMIUM, captions, upload
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


@pytest.fixture(params=[(1280, 900), (360, 740)], ids=["desktop", "phone"])
def page(server: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a browser; at the end it must have asked no other host, logged no error and fit the window."""
    width, height = request.param
    faults: list[str] = []

    def note(sent: Request) -> None:
        if not sent.url.startswith((server.url, "data:", "blob:")):
            faults.append(sent.url)

    window = {"width": width, "height": height}
    page = browser.new_page(viewport=window, has_touch=width < 600, reduced_motion="reduce")
    page.on("request", note)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(server.url)
    page.set_default_timeout(20_000)
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
def captioned(page: Page, tmp_path: Path) -> Page:
    """The page with an image captioned."""
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    generated(3).save(path)
    upload(page, path)
    expect(captions(page)).to_have_count(1, timeout=60_000)
    return page
