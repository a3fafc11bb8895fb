"""The page without a server: everything is done in the browser, and after loading without a network."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from hf_captioner import ImageCaptioner
from hf_captioner.demo.recaption import CaptionRequest, first_caption, recaption
from hf_captioner.images import read_pixels
from tests.conftest import generated
from tests.demo.browsing import (
    expect_caption,
    give,
    needs_browser,
    open_fold,
    open_tab,
    panel,
    text_of,
    versions,
    words,
)
from tests.demo.static_host import Host, hosted
from tests.demo.test_page_tabs import cards, downloaded
from train.browser import ASK

pytestmark = needs_browser
OWN = ("blob:", "data:")


@pytest.fixture
def host(static_page: Path) -> Iterator[Host]:
    with hosted(static_page) as host:
        yield host


def opened(context: BrowserContext, host: Host) -> Page:
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(host.url)
    return page


def expect_ready(page: Page) -> None:
    expect(page.locator("[data-part=loading]")).to_contain_text("ready. From now on the page works without a network")
    expect(page.locator("[data-part=loading] :is(progress, button):visible")).to_have_count(0)


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def offline(host: Host, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page once it is loaded, with its host gone; at the end it must have asked for nothing more, nor failed."""
    width, height = request.param
    context = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=width < 600, reduced_motion="reduce"
    )
    page = opened(context, host)
    expect_ready(page)
    host.stop()
    faults: list[str] = []

    def note(sent: Request) -> None:
        if not sent.url.startswith(OWN):
            faults.append(sent.url)

    context.on("request", note)  # also of its workers
    page.on("pageerror", lambda error: faults.append(str(error)))
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not faults
    context.close()


def test_a_photo_is_captioned_and_asked_about_without_a_network(
    offline: Page, in_python: ImageCaptioner, tmp_path: Path
) -> None:
    path = tmp_path / "mine.png"
    generated(3).save(path)
    give(offline, path)
    pixels = read_pixels(path, in_python.config)
    first = first_caption(in_python, pixels, None)
    expect_caption(offline, first.text)
    expect(offline.get_by_text("Your photos stay on this device")).to_be_visible()
    words(offline).nth(1).click()
    alternatives = offline.get_by_role("dialog").locator("li .name").all_inner_texts()
    assert set(alternatives) <= {text for text, _ in first.words[1].alternatives} and alternatives
    offline.get_by_role("button", name="Hide what this word looked at").click()
    expect(versions(offline)).to_have_count(2)
    open_fold(offline, "Try another caption")
    offline.get_by_label("Start with").first.fill("two")
    offline.get_by_role("button", name="Write it").first.click()
    expect(versions(offline)).to_have_count(3)
    offline.get_by_label("Start with").first.fill("zebra")
    offline.get_by_role("button", name="Write it").first.click()
    expect(offline.get_by_text("The model doesn't know “zebra”. Try a more common word.")).to_be_visible()
    offline.locator("#example-cat").click()
    expect(offline.locator("#example-cat")).to_have_attribute("aria-pressed", "true")
    offline.get_by_role("button", name="Copy alt text").first.scroll_into_view_if_needed()


def test_bad_photos_are_told_in_place(offline: Page, bad_path: Path, tmp_path: Path) -> None:
    before = text_of(offline)
    small, long, empty, broken = (tmp_path / f"{name}.png" for name in ("small", "long", "empty", "broken"))
    generated(1, (1, 1)).save(small)
    generated(1, (1000, 20)).save(long)
    empty.write_bytes(b"")
    generated(1).save(broken)
    broken.write_bytes(broken.read_bytes()[:100])
    for path, sentence in (
        (bad_path, "This file isn't an image we can open. Use JPEG, PNG, WebP or GIF."),
        (small, "The image has only 1 x 1 pixels; expected at least 16 on each side."),
        (long, "The image has 1000 x 20 pixels, which is too elongated"),
        (empty, "This file is empty"),
        (broken, "This photo is damaged or incomplete."),
    ):
        give(offline, path)
        expect(panel(offline, "Caption").get_by_text(sentence)).to_be_visible()
        assert text_of(offline) == before, "the last good result stays"


def test_many_photos_are_captioned_and_downloaded(
    offline: Page, in_python: ImageCaptioner, image_paths: list[Path], bad_path: Path
) -> None:
    open_tab(offline, "Batch")
    give(offline, bad_path, *image_paths)
    expect(offline.get_by_text("6 of 6, 1 without a caption")).to_be_visible()
    expect(cards(offline).first).to_contain_text("This file isn't an image we can open")
    rows = json.loads(downloaded(offline, "captions.json", "Download JSON"))
    assert [row["caption"] for row in rows[1:]] == [each.text for each in in_python.caption(image_paths)]
    cards(offline).nth(1).get_by_role("button", name="See where it looked").click()
    expect_caption(offline, in_python.caption(image_paths[0]).text)


def test_the_camera_is_captioned(offline: Page) -> None:
    open_tab(offline, "Camera")
    expect(offline.get_by_text("Each frame is captioned on this device")).to_be_visible()
    offline.get_by_role("button", name="Start the camera").click()
    expect(offline.get_by_text(re.compile(r"[\d.]+ captions a second"))).to_be_visible()
    offline.get_by_role("button", name="Freeze").click()
    expect(words(offline, "Camera").first).to_be_visible()
    offline.get_by_role("button", name="Stop the camera").click()


def test_what_needs_a_server_is_not_offered(offline: Page) -> None:
    assert offline.get_by_role("tab").all_inner_texts() == ["Caption", "Batch", "Camera", "About"]
    open_tab(offline, "About")
    expect(panel(offline, "About")).to_contain_text("Use it from Python")
    expect(panel(offline, "About")).not_to_contain_text("MCP")


def test_the_next_visit_needs_no_network_and_has_threads(
    host: Host, browser: Browser, in_python: ImageCaptioner, tmp_path: Path
) -> None:
    context = browser.new_context()
    expect_ready(opened(context, host))
    host.stop()
    page = opened(context, host)
    expect_ready(page)
    assert page.evaluate("crossOriginIsolated")
    path = tmp_path / "mine.png"
    generated(4).save(path)
    give(page, path)
    expect_caption(page, in_python.caption(path).text)
    context.close()


DROPPED = """async ([content, kind]) => {
  const file = new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], "mine.png", { type: "image/png" });
  const data = new DataTransfer();
  data.items.add(file);
  const how = { bubbles: true, cancelable: true };
  const events = {
    paste: () => [new ClipboardEvent("paste", { clipboardData: data, ...how })],
    drop: () => ["dragover", "drop"].map((name) => new DragEvent(name, { dataTransfer: data, ...how })),
  };
  for (const event of events[kind]()) document.querySelector("h1").dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_photo_is_pasted_and_dropped(offline: Page, in_python: ImageCaptioner, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mine.png"
    generated(6).save(path)
    offline.evaluate(DROPPED, [base64.b64encode(path.read_bytes()).decode(), kind])
    text = in_python.caption(path).text
    expect_caption(offline, text)
    expect(offline.get_by_label("Alt text (check before using)").first).to_have_value(f"{text[0].upper()}{text[1:]}.")


def test_it_can_be_installed_as_an_app(host: Host, browser: Browser) -> None:
    context = browser.new_context()
    page = opened(context, host)
    expect_ready(page)
    session = context.new_cdp_session(page)
    found = session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {each["errorId"] for each in found} <= {"in-incognito"}, "as every context of a test is"
    assert session.send("Page.getAppManifest")["errors"] == []
    context.close()


def test_a_visitor_may_stop_what_is_asked(offline: Page, in_python: ImageCaptioner, image_paths: list[Path]) -> None:
    """The newest photo wins, whatever was asked before it."""
    for path in image_paths:
        give(offline, path)
    expect_caption(offline, in_python.caption(image_paths[-1]).text)


# -- what the browser writes is what Python writes ---------------------------------------------------------------------


def ask_again(page: Page, request: CaptionRequest, covered: list[int], words: int, path: Path) -> list[str]:
    code = """async ([request, covered, words, content]) => {
      const file = new Blob([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))]);
      const { photo } = await device.photo(file, "mine.png");
      return (await device.again({ photo, request, covered, words })).map(({ caption }) => caption);
    }"""
    return page.evaluate(code, [vars(request), covered, words, base64.b64encode(path.read_bytes()).decode()])


def test_another_caption_is_the_one_that_python_gives(
    host: Host, browser: Browser, in_python: ImageCaptioner, tmp_path: Path
) -> None:
    page = opened(browser.new_context(), host)
    page.evaluate(ASK)
    path = tmp_path / "mine.png"
    covered = np.random.default_rng(0).integers(0, 2, (32, 32)).astype(bool)
    for seed in range(4):
        generated(seed).save(path)
        pixels = read_pixels(path, in_python.config)
        count = len(first_caption(in_python, pixels, None).words)
        for request in (
            CaptionRequest(),
            CaptionRequest(prefix="two"),
            CaptionRequest(bad_words="dog, a"),
            CaptionRequest(length="Longer"),
            CaptionRequest(several=True),
        ):
            for cells in (None, covered):
                expected = recaption(in_python, pixels, request, cells, count)
                sent = [] if cells is None else cells.ravel().astype(int).tolist()
                found = ask_again(page, request, sent, count, path)
                assert found == [caption.text for caption in expected], (seed, request, cells is None)
    page.context.close()


# -- loading -----------------------------------------------------------------------------------------------------------


def test_a_lost_network_is_told_and_loading_goes_on_where_it_broke_off(
    host: Host, browser: Browser, in_python: ImageCaptioner, tmp_path: Path
) -> None:
    encoder = "model/onnx/encoder_model_quantized.onnx"
    host.cut[encoder] = 200_000
    page = opened(browser.new_context(), host)
    loading, path = page.locator("[data-part=loading]"), tmp_path / "mine.png"
    expect(loading).to_contain_text("The network was lost. What has arrived is kept")
    expect(words(page).first).to_be_visible()
    generated(3).save(path)
    give(page, path)  # and waits
    host.lost = False
    loading.get_by_role("button", name="Go on").click()
    expect_ready(page)
    expect_caption(page, in_python.caption(path).text)
    (again,) = [each for each in host.asked if each.startswith(f"{encoder} ")]
    assert 0 < int(re.findall(r"\d+", again)[-1]) <= 200_000
    assert host.asked.count("runtime/ort-wasm-simd-threaded.wasm.gzip") == 1, "what was whole is not loaded twice"
    page.context.close()


def test_a_network_that_is_lost_before_the_page_is_there_is_told(host: Host, browser: Browser) -> None:
    host.cut["page/example/cat.json"] = 100
    page = opened(browser.new_context(), host)
    expect(page.locator("[data-part=loading]")).to_contain_text("lost before the page was there. Reload it.")
    host.lost = False
    page.reload()
    expect_ready(page)
    page.context.close()


def test_a_page_that_was_replaced_meanwhile_says_so(static_page: Path, browser: Browser, tmp_path: Path) -> None:
    shutil.copytree(static_page, tmp_path / "page")
    (tmp_path / "page" / "model" / "config.json").write_text("{}")
    with hosted(tmp_path / "page") as host:
        page = opened(browser.new_context(), host)
        expect(page.locator("[data-part=loading]")).to_contain_text("replaced by a newer one meanwhile. Reload it.")
        page.context.close()
