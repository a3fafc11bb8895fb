"""The page in a real browser, on a desktop and on a phone: a visitor with one image, and the page as a whole."""

import re
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from hf_captioner import ImageCaptioner
from tests.conftest import generated
from tests.demo.browsing import captions, needs_browser, open_tab, text_of, upload

GRADIOS_OWN = ('aria-label="Static column"', 'class="virtual-table-viewport')
"""Parts of its table that axe finds fault with, and that no option changes."""
PASTED = """async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  Object.assign(canvas.getContext("2d"), { fillStyle: "white" }).fillRect(0, 0, 64, 64);
  const blob = await new Promise((go) => canvas.toBlob(go));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
}"""
PAINTED = """() => new Promise((go) => {
  let jump = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((shift) => (jump += shift.value))).observe({
    type: "layout-shift", buffered: true,
  });
  const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(() => go([paint, jump]))));
})"""
"""Milliseconds until something is painted, and how much the page jumped (cumulative layout shift)."""
pytestmark = needs_browser


def test_the_page_is_painted_at_once_and_nothing_jumps(page: Page) -> None:
    page.get_by_role("button", name="Cat").wait_for()
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    milliseconds, jump = page.evaluate(PAINTED)
    assert milliseconds < 2000
    assert jump < 0.05


def pixels(page: Page) -> str:
    return page.evaluate("document.querySelector('#attention_view [data-part=image]').toDataURL()")


def test_each_word_lights_the_image(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    caption = saved_captioner.caption(generated(3))
    words = captioned.locator("#attention_view .words button")
    assert words.all_inner_texts() == [word.text for word in caption.words]
    expect(captioned.locator("#attention_view [aria-live]")).to_have_text(f"Caption: {caption.text}")
    plain = pixels(captioned)
    words.first.focus()
    first = pixels(captioned)
    captioned.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
    assert len({plain, first, pixels(captioned)}) == 3
    captioned.keyboard.press("Escape")
    assert pixels(captioned) == plain
    words.nth(1).click()
    expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
    expect(captioned.locator("#alternatives")).to_be_visible()
    words.nth(1).click()
    expect(words.nth(1)).to_have_attribute("aria-pressed", "false")
    expect(captioned.locator("#alternatives")).to_be_hidden()
    captioned.get_by_label("Show every word").check()
    expect(captioned.get_by_label("Show every word")).not_to_have_css("background-color", "rgba(0, 0, 0, 0)")
    expect(captioned.locator("#attention_view figure")).to_have_count(len(caption.words))
    captioned.get_by_role("button", name="Play").click()
    expect(captioned.locator("#attention_view .highlighted")).to_have_count(1)
    with captioned.expect_download() as download:
        captioned.get_by_role("button", name="Download image").click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.width > 500


def test_on_a_slow_connection_the_last_touch_counts(captioned: Page) -> None:
    network = captioned.context.new_cdp_session(captioned)
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)
    word = captioned.locator("#attention_view .words button").first
    for _ in range(2):  # the visitor changes their mind while the server is asked
        with captioned.expect_request("**/queue/join*"):
            word.click()
    captioned.wait_for_timeout(3000)  # until both answers have come
    expect(captioned.locator("#alternatives")).to_be_hidden(timeout=20_000)


def test_covering_what_a_word_looked_at_asks_again(captioned: Page) -> None:
    captioned.locator("#attention_view .words button").nth(1).click()
    captioned.get_by_role("button", name="Hide what this word looked at").click()
    expect(captions(captioned)).to_have_count(2)
    expect(captions(captioned).nth(1)).to_contain_text("With part of the photo covered")
    captioned.get_by_role("button", name="Clear cover").click()
    expect(captions(captioned)).to_have_count(1)
    captioned.get_by_label("Cover with brush").check()
    image = captioned.locator("#attention_view [data-part=image]")
    image.scroll_into_view_if_needed()
    box = image.bounding_box()
    assert box is not None
    captioned.mouse.move(box["x"] + 20, box["y"] + 20)
    captioned.mouse.down()
    captioned.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40, steps=5)
    captioned.mouse.up()
    expect(captions(captioned)).to_have_count(2)


def test_picking_another_word_rewrites_the_rest(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    first = text_of(captions(captioned).first).split()[0]
    captioned.locator("#attention_view .words button").nth(1).click()
    choice = captioned.locator("#alternatives label").nth(1)
    beginning = f"{first} {choice.inner_text().split(' (')[0]}"
    choice.click()
    expect(captions(captioned)).to_have_count(2)
    assert text_of(captions(captioned).nth(1)).startswith(beginning)
    expect(captioned.get_by_label("Start with")).to_have_value(beginning)
    captioned.get_by_role("button", name="Reset").click()
    expect(captions(captioned)).to_have_count(1)
    expect(captioned.get_by_label("Start with")).to_have_value("")


def test_captions_follow_the_request(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    text = text_of(captions(captioned).first)
    avoided = text.split()[-1]
    captioned.get_by_label("Leave out").fill(avoided)
    captioned.get_by_label("Leave out").press("Enter")
    expect(captions(captioned)).to_have_count(2)
    assert avoided not in text_of(captions(captioned).nth(1)).split()
    captioned.get_by_label("Three different captions").check()
    expect(captions(captioned)).to_have_count(4)
    captioned.get_by_label("Start with").fill("<b>submarine</b>")
    captioned.get_by_label("Start with").press("Enter")
    expect(captioned.get_by_text("The model doesn't know").first).to_be_visible()
    expect(captions(captioned)).to_have_count(4)


def test_the_alternative_text_is_a_sentence_to_edit_and_copy(captioned: Page) -> None:
    text = text_of(captions(captioned).first)
    alt = captioned.get_by_label("Alt text (check before using)")
    expect(alt).to_have_value(f"{text.capitalize()}.")
    alt.fill('A "big" dog.')
    expect(captioned.locator("#alt-text-length")).to_contain_text("12 characters.")
    markup = captioned.get_by_label("HTML")
    expect(markup).to_have_value(re.compile(r'alt="A &quot;big&quot; dog\."'))
    expect(markup).to_have_value(re.compile(r'src="[^<>]*png"'))
    captioned.context.grant_permissions(["clipboard-read", "clipboard-write"])
    captioned.get_by_role("button", name="Copy text").click()
    assert captioned.evaluate("navigator.clipboard.readText()") == 'A "big" dog.'


def test_edited_alt_text_stays_until_the_new_caption_is_taken(captioned: Page) -> None:
    alt = captioned.get_by_label("Alt text (check before using)")
    alt.fill("My own words.")
    captioned.get_by_label("More varied").check()
    expect(captions(captioned)).to_have_count(2)
    expect(alt).to_have_value("My own words.")
    captioned.get_by_role("button", name="Use the new caption").click()
    expect(alt).to_have_value(f"{text_of(captions(captioned).nth(1)).capitalize()}.")
    expect(captioned.get_by_role("button", name="Use the new caption")).to_be_hidden()
    captioned.get_by_role("button", name="Reset").click()
    expect(alt).to_have_value(f"{text_of(captions(captioned).first).capitalize()}.")


def test_an_example_is_captioned_at_a_click(page: Page) -> None:
    page.get_by_role("button", name="Cat").click()
    expect(captions(page)).to_have_count(1, timeout=60_000)


def test_a_photo_is_taken_or_pasted(page: Page, saved_captioner: ImageCaptioner) -> None:
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.locator("video").evaluate("video => video.readyState > 1 || new Promise(go => (video.onloadeddata = go))")
    page.get_by_label("Capture photo").click()
    expect(captions(page)).to_have_count(1, timeout=60_000)
    page.get_by_label("Remove image").or_(page.get_by_label("Clear")).first.click()
    expect(captions(page)).to_have_count(0)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(PASTED)
    page.get_by_label("Paste from clipboard").click()
    expect(captions(page)).to_have_count(1, timeout=60_000)
    white = saved_captioner.caption(Image.new("RGB", (64, 64), "white"))
    assert text_of(captions(page)) == white.text


def test_a_broken_file_gets_a_sentence_and_the_page_goes_on(page: Page, bad_path: Path, image_path: Path) -> None:
    for _ in range(2):  # the second time with a caption to be taken back
        upload(page, bad_path)
        expect(page.get_by_text("This file isn't an image").first).to_be_visible(timeout=60_000)
        expect(captions(page)).to_have_count(0)
        page.get_by_label("Remove image").or_(page.get_by_label("Clear")).first.click()
        upload(page, image_path)
        expect(captions(page)).to_have_count(1, timeout=60_000)
        page.get_by_label("Remove image").or_(page.get_by_label("Clear")).first.click()


def test_the_page_says_what_the_card_says(page: Page) -> None:
    open_tab(page, "About")
    expect(page.get_by_role("heading", name="Limits and biases")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_a_screen_reader_or_a_keyboard_out(captioned: Page, scheme: Literal["light", "dark"]) -> None:
    captioned.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    captioned.locator("#attention_view .words button").first.click()
    captioned.locator("#attention_view").get_by_label("Show every word").check()
    captioned.get_by_label("Three different captions").check()
    expect(captions(captioned)).to_have_count(4)
    for tab in ("Caption", "Batch", "Camera", "Compare", "About"):
        open_tab(captioned, tab)
        found = Axe().run(captioned).response["violations"]
        assert not [
            (tab, fault["id"], node["html"])
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
            if not any(own in node["html"] for own in GRADIOS_OWN)
        ]
