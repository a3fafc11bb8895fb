"""The page in its real server: asked by gradio_client, and used in a real browser."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import Page, Request, expect, sync_playwright

from hf_captioner import ImageCaptioner
from tests.conftest import generated
from tests.test_readme import blocks

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
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


@dataclass(frozen=True)
class Server:
    url: str
    hosts: Path
    """A line for each host that the server asked the address of."""


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVE, str(folder / "hosts"), "demo", "--model", str(checkpoint)]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, process, folder / "log")
        yield Server(url, folder / "hosts")
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError(log.read_text())


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(server.url, verbose=False)


@pytest.fixture(scope="module")
def captioner(checkpoint: Path) -> ImageCaptioner:
    return ImageCaptioner.from_pretrained(checkpoint)


@pytest.fixture
def bad_path(tmp_path: Path) -> Path:
    path = tmp_path / "<b>bad<.jpg"
    path.write_text("no picture")
    return path


# -- the endpoint ------------------------------------------------------------------------------------------------------


def test_the_endpoint_gives_the_caption_that_python_gives(
    client: Client, captioner: ImageCaptioner, photograph_path: Path
) -> None:
    answer = client.predict(handle_file(photograph_path), api_name="/caption")
    caption = captioner.caption(photograph_path)
    assert answer["caption"] == caption.text
    assert [word["text"] for word in answer["words"]] == [word.text for word in caption.words]
    assert sum(map(sum, answer["words"][0]["attention"])) == pytest.approx(1, abs=1e-2)


def test_the_readmes_example_runs(
    server: Server, photograph: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photograph.save("dog.jpg")
    example = blocks("python")[1].replace("http://127.0.0.1:7860", server.url)
    said = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True).stdout
    assert re.search(r"^[a-z ]+ \['[a-z]+'", said, re.MULTILINE)


def test_a_bad_picture_is_one_sentence_without_the_servers_paths(client: Client, bad_path: Path) -> None:
    with pytest.raises(AppError) as error:
        client.predict(handle_file(bad_path), api_name="/caption")
    assert "This picture cannot be read: " in str(error.value)
    assert "uploads" not in str(error.value)


def test_a_picture_of_the_servers_own_is_not_captioned(server: Server, photograph_path: Path) -> None:
    call = f"{server.url}/gradio_api/call/caption"
    for picture in (str(photograph_path), {"path": str(photograph_path), "meta": {"_type": "gradio.FileData"}}, None):
        event = httpx.post(call, json={"data": [picture]}).json()["event_id"]
        answer = httpx.get(f"{call}/{event}", timeout=60).text
        assert "event: error" in answer
        assert "caption" not in answer


def test_the_server_asks_for_no_other_host(server: Server, client: Client, photograph_path: Path) -> None:
    client.predict(handle_file(photograph_path), api_name="/caption")
    assert set(server.hosts.read_text().split()) <= {"127.0.0.1", "localhost", "0.0.0.0", "None"}


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(1280, 900), (360, 740)], ids=["desktop", "phone"])
def page(server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a browser; at the end it must have asked no other host and logged no error."""
    width, height = request.param
    faults: list[str] = []

    def note(sent: Request) -> None:
        if not sent.url.startswith((server.url, "data:", "blob:")):
            faults.append(sent.url)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("request", note)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(server.url)
        yield page
        browser.close()
    assert not faults


def upload(page: Page, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)


@needs_chromium
def test_a_photograph_gives_a_caption_and_a_map_for_every_word(
    page: Page, captioner: ImageCaptioner, tmp_path: Path
) -> None:
    path = tmp_path / "mine.png"
    generated(3).save(path)
    caption = captioner.caption(path)
    upload(page, path)
    expect(page.locator("#caption textarea")).to_have_value(caption.text, timeout=60_000)
    maps = page.locator("#maps .grid-container img")
    expect(maps).to_have_count(len(caption.words))
    assert page.locator("#maps .caption-label").all_inner_texts() == [word.text for word in caption.words]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@needs_chromium
def test_an_example_is_captioned_at_a_click(page: Page) -> None:
    page.get_by_role("button", name=re.compile("example", re.IGNORECASE)).or_(
        page.locator(".gallery-item")
    ).first.click()
    expect(page.locator("#caption textarea")).not_to_have_value("", timeout=60_000)


@needs_chromium
def test_a_broken_picture_gets_a_sentence_and_the_page_goes_on(
    page: Page, bad_path: Path, photograph_path: Path
) -> None:
    upload(page, bad_path)
    for _ in range(2):  # the second time with a caption to be taken back
        upload(page, bad_path)
        expect(page.get_by_text("This picture cannot be read").first).to_be_visible(timeout=60_000)
        expect(page.locator("#caption textarea")).to_have_value("", timeout=60_000)
        page.get_by_label("Remove image").or_(page.get_by_label("Clear")).first.click()
        upload(page, photograph_path)
        expect(page.locator("#caption textarea")).not_to_have_value("", timeout=60_000)
        page.get_by_label("Remove image").or_(page.get_by_label("Clear")).first.click()


def test_the_space_has_the_header_and_requirements_that_the_hub_wants() -> None:
    space = Path(__file__).resolve().parent.parent / "space"
    header = (space / "README.md").read_text().split("---")[1]
    assert "sdk: gradio" in header and "app_file: app.py" in header
    packages = tomllib.loads((space.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = [package for package in packages if not package.startswith("gradio")]  # the header's sdk_version
    assert (space / "requirements.txt").read_text().split() == wanted
    for example in (space / "examples").glob("*.jpg"):
        assert example.name in (space / "examples" / "ATTRIBUTION.md").read_text()
        with Image.open(example) as picture:
            assert min(picture.size) >= 200
