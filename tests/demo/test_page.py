"""A visitor with one photo, in a real browser, on a desktop and on a phone."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from hf_captioner import ImageCaptioner
from tests.conftest import generated
from tests.demo.browsing import expect_caption, give, needs_browser, open_fold, panel, pixels, text_of, versions, words
from tests.demo.serving import Server

WITH_A_WHITE_PHOTO = """async (give) => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
  Object.assign(canvas.getContext("2d"), { fillStyle: "white" }).fillRect(0, 0, 64, 64);
  const blob = await new Promise((go) => canvas.toBlob(go));
  const data = new DataTransfer();
  data.items.add(new File([blob], "white.png", { type: "image/png" }));
  for (const event of (0, eval)(give)(data)) document.querySelector("h1").dispatchEvent(event);
}"""
PASTED = "(clipboardData) => [new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true })]"
DROPPED = """(dataTransfer) =>
  ["dragover", "drop"].map((kind) => new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }))"""
pytestmark = needs_browser


def test_each_word_lights_the_photo(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    caption = saved_captioner.caption(generated(3))
    assert words(captioned).all_inner_texts() == [word.text for word in caption.words]
    words(captioned).first.focus()
    captioned.keyboard.press("Home")
    first = pixels(captioned)
    captioned.keyboard.press("ArrowRight")
    expect(words(captioned).nth(1)).to_be_focused()
    expect(words(captioned).nth(1)).to_have_attribute("aria-pressed", "true")
    expect(panel(captioned, "Caption").locator(".line")).to_contain_text(re.compile(r"^\S+, \d+ %, (mostly|all over)"))
    second = pixels(captioned)
    captioned.keyboard.press("Escape")
    expect(words(captioned).nth(1)).to_have_attribute("aria-pressed", "false")
    assert len({first, second, pixels(captioned)}) == 3


@pytest.mark.parametrize("page", [(1280, 900)], indirect=True, ids=["desktop"])
def test_pointing_at_a_word_lights_it_at_once(captioned: Page) -> None:
    words(captioned).first.focus()
    captioned.keyboard.press("Escape")
    plain = pixels(captioned)
    words(captioned).nth(1).hover()
    assert pixels(captioned) != plain
    captioned.mouse.move(2, 2)
    assert pixels(captioned) == plain


def test_a_word_shows_what_else_could_stand_there(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    first = text_of(captioned).split()[0]
    words(captioned).nth(1).click()
    popover = captioned.get_by_role("dialog")
    expect(popover).to_be_visible()
    expect(popover.locator(".present")).to_have_count(1)
    expect(popover.locator(".present button")).to_be_disabled()
    captioned.keyboard.press("Escape")
    expect(popover).to_be_hidden()
    expect(words(captioned).nth(1)).to_be_focused()
    words(captioned).nth(1).press("Enter")
    choice = popover.get_by_role("button").and_(popover.locator("li button:enabled")).first
    beginning = f"{first} {choice.locator('.name').inner_text()}"
    choice.click()
    expect(versions(captioned)).to_have_count(2)
    expect_caption(captioned, saved_captioner.caption(generated(3), prefix=beginning).text)
    expect(versions(captioned).nth(1)).to_contain_text(f"Starting with “{beginning}”")
    open_fold(captioned, "Try another caption")
    expect(captioned.get_by_label("Start with").first).to_have_value(beginning)


def test_the_chosen_caption_governs_light_and_alt_text(captioned: Page) -> None:
    first = text_of(captioned)
    open_fold(captioned, "Try another caption")
    captioned.get_by_label("Three different captions").first.check()
    captioned.get_by_role("button", name="Write it").first.click()
    expect(versions(captioned)).to_have_count(4)
    alt = captioned.get_by_label("Alt text (check before using)").first
    for number in (2, 0):
        versions(captioned).nth(number).click()
        expect(versions(captioned).nth(number).get_by_role("radio")).to_be_checked()
        shown = text_of(captioned)
        expect(alt).to_have_value(f"{shown[0].upper()}{shown[1:]}.")
    assert text_of(captioned) == first


def test_hiding_what_a_word_looked_at_asks_again(captioned: Page) -> None:
    words(captioned).nth(1).click()
    captioned.get_by_role("button", name="Hide what this word looked at").click()
    expect(versions(captioned)).to_have_count(2)
    expect(versions(captioned).nth(1)).to_contain_text("With part of the photo covered")
    covered = pixels(captioned)
    panel(captioned, "Caption").get_by_role("button", name="Cover", exact=True).click()
    panel(captioned, "Caption").get_by_role("button", name="Clear cover").click()
    expect(versions(captioned).first.get_by_role("radio")).to_be_checked()
    assert pixels(captioned) != covered
    expect(panel(captioned, "Caption").get_by_role("button", name="Clear cover")).to_be_disabled()


def test_the_brush_covers_and_the_eraser_uncovers(captioned: Page) -> None:
    panel(captioned, "Caption").get_by_role("button", name="Cover", exact=True).click()
    canvas = panel(captioned, "Caption").locator("canvas").first

    def stroke() -> None:
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        captioned.mouse.move(middle[0] - 30, middle[1])
        captioned.mouse.down()
        captioned.mouse.move(*middle, steps=4)
        captioned.mouse.up()

    stroke()
    expect(versions(captioned)).to_have_count(2)
    panel(captioned, "Caption").get_by_role("button", name="Eraser").click()
    stroke()
    expect(versions(captioned).first.get_by_role("radio")).to_be_checked()


def test_captions_follow_the_request(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    avoided = text_of(captioned).split()[-1]
    open_fold(captioned, "Try another caption")
    captioned.get_by_label("Leave out").first.fill(avoided)
    captioned.get_by_label("Leave out").first.press("Enter")
    expect(versions(captioned)).to_have_count(2)
    assert avoided not in text_of(captioned).split()
    before = text_of(captioned)
    captioned.get_by_label("Start with").first.fill("<b>submarine</b>")
    captioned.get_by_label("Start with").first.press("Enter")
    error = panel(captioned, "Caption").get_by_role("alert")
    expect(error).to_contain_text("The model doesn't know “<b>submarine</b>”")
    assert text_of(captioned) == before, "the last good caption stays"
    captioned.get_by_role("button", name="Reset").first.click()
    expect(captioned.get_by_label("Start with").first).to_have_value("")
    expect_caption(captioned, saved_captioner.caption(generated(3)).text)
    captioned.get_by_label("More varied").first.check()
    captioned.get_by_role("button", name="Try again").first.click()
    expect(versions(captioned)).to_have_count(3)


def test_edited_alt_text_stays_until_the_new_caption_is_taken(captioned: Page) -> None:
    alt = captioned.get_by_label("Alt text (check before using)").first
    alt.fill('A "big" dog.')
    expect(panel(captioned, "Caption").get_by_text("12 characters.")).to_be_visible()
    offer = panel(captioned, "Caption").get_by_text("New caption available")
    expect(offer).to_be_hidden()
    words(captioned).nth(1).click()
    captioned.get_by_role("dialog").locator("li button:enabled").first.click()
    expect(versions(captioned)).to_have_count(2)
    expect(alt).to_have_value('A "big" dog.')
    captioned.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(captioned, "Caption").get_by_role("button", name="Copy HTML").click()
    expect(panel(captioned, "Caption").get_by_text("HTML copied.")).to_be_visible()
    copied = captioned.evaluate("navigator.clipboard.readText()")
    assert copied == '<img src="&lt;img src=x onerror=alert(1)&gt;.png" alt="A &quot;big&quot; dog.">'
    panel(captioned, "Caption").get_by_role("button", name="Use it").click()
    expect(alt).to_have_value(f"{text_of(captioned).capitalize()}.")
    expect(offer).to_be_hidden()


def test_words_play_and_are_downloaded_as_one_image(captioned: Page) -> None:
    play = panel(captioned, "Caption").locator(".play")
    expect(play).to_have_text("Play")
    play.click()
    expect(panel(captioned, "Caption").locator(".word.lit")).to_have_count(1)
    expect(play).to_have_text("Stop")
    play.click()
    expect(play).to_have_text("Play")
    panel(captioned, "Caption").get_by_label("Show every word").check()
    expect(panel(captioned, "Caption").locator(".tiles figure")).to_have_count(words(captioned).count())
    with captioned.expect_download() as download:
        panel(captioned, "Caption").get_by_role("button", name="Download image").click()
    with Image.open(download.value.path()) as sheet:
        assert sheet.width > 500
    captioned.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(captioned, "Caption").get_by_role("button", name="Copy image").click()
    expect(panel(captioned, "Caption").get_by_text("Image copied.")).to_be_visible()
    assert captioned.evaluate("async () => (await navigator.clipboard.read())[0].types") == ["image/png"]


def test_a_photo_is_pasted_dropped_or_taken(page: Page, saved_captioner: ImageCaptioner) -> None:
    white = saved_captioner.caption(Image.new("RGB", (64, 64), "white")).text
    for action in (PASTED, DROPPED):
        page.get_by_role("button", name="Cat").click()
        expect(page).to_have_url(re.compile("example=cat"))
        expect(panel(page, "Caption").locator(".reading")).to_have_attribute("aria-busy", "false")
        page.evaluate(WITH_A_WHITE_PHOTO, action)
        expect(page).not_to_have_url(re.compile("example"))
        expect_caption(page, white)
    page.get_by_role("button", name="Take a photo").click()
    expect(page.get_by_role("button", name="Take it")).to_be_enabled()
    page.get_by_role("button", name="Take it").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(panel(page, "Caption").get_by_role("toolbar")).not_to_have_attribute("aria-label", white)


def test_an_error_stands_where_the_caption_would_and_nothing_is_lost(
    captioned: Page, bad_path: Path, image_path: Path, saved_captioner: ImageCaptioner
) -> None:
    before = text_of(captioned)
    error = panel(captioned, "Caption").get_by_role("alert")
    tiny = {"name": "tiny.gif", "mimeType": "image/gif", "buffer": TINY}
    for file, sentence in ((bad_path, "This file isn't an image we can open"), (tiny, "only 1 x 1 pixels")):
        give(captioned, file)  # type: ignore[arg-type]
        expect(error).to_contain_text(sentence)
        captioned.wait_for_timeout(500)
        expect(error).to_be_visible()
        assert text_of(captioned) == before
    words(captioned).first.focus()
    captioned.keyboard.press("Home")
    expect(words(captioned).first).to_have_class(re.compile("lit"))
    give(captioned, image_path)
    expect_caption(captioned, saved_captioner.caption(image_path).text)
    expect(error).to_be_hidden()


TINY = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
"""A GIF of 1 x 1 pixel."""


def test_while_it_works_the_photo_is_there_and_nothing_else_is_claimed(captioned: Page, image_path: Path) -> None:
    captioned.route("**/page/photo", lambda route: None)  # never answered
    before = pixels(captioned)
    give(captioned, image_path)
    expect(panel(captioned, "Caption").locator(".reading")).to_have_attribute("aria-busy", "true")
    expect(panel(captioned, "Caption").locator(".skeleton")).to_be_visible()
    expect(panel(captioned, "Caption").get_by_role("toolbar")).to_be_hidden()
    captioned.wait_for_function("before => document.querySelector('canvas').toDataURL() !== before", arg=before)


def test_a_reload_brings_the_captions_back_or_says_that_they_are_gone(captioned: Page, image_path: Path) -> None:
    words(captioned).nth(1).click()
    captioned.get_by_role("dialog").locator("li button:enabled").first.click()
    expect(versions(captioned)).to_have_count(2)
    text = text_of(captioned)
    captioned.reload()
    expect(versions(captioned)).to_have_count(2)
    expect_caption(captioned, text)
    captioned.route("**/page/photo", lambda route: None)  # never answered
    give(captioned, image_path)
    expect(panel(captioned, "Caption").locator(".reading")).to_have_attribute("aria-busy", "true")
    captioned.reload()
    expect(panel(captioned, "Caption").get_by_role("alert")).to_have_text(re.compile("gone after the reload"))


def test_back_and_forward_and_links_lead_to_tabs_and_examples(server: Server, page: Page) -> None:
    page.get_by_role("button", name="Cat").click()
    expect(page).to_have_url(re.compile(r"\?example=cat&word=\d"))
    page.get_by_role("tab", name="About").click()
    expect(page).to_have_url(re.compile("#about$"))
    page.go_back()
    expect(page.get_by_role("tab", name="Caption")).to_have_attribute("aria-selected", "true")
    page.go_back()
    expect(page).to_have_url(re.compile("example=camera"))
    expect(page.locator("#example-camera")).to_have_attribute("aria-pressed", "true")
    page.go_forward()
    expect(page.locator("#example-cat")).to_have_attribute("aria-pressed", "true")
    page.goto(f"{server.url}/?example=coffee&word=2")
    expect(words(page).nth(1)).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#example-coffee")).to_have_attribute("aria-pressed", "true")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(page, "Caption").get_by_role("button", name="Copy link").click()
    expect(panel(page, "Caption").get_by_text("Link copied.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"{server.url}/?example=coffee&word=2"


def test_a_photo_of_ones_own_has_no_link(captioned: Page) -> None:
    expect(panel(captioned, "Caption").get_by_role("button", name="Copy link")).to_be_hidden()
    expect(panel(captioned, "Caption").get_by_text("Your photo stays private")).to_be_visible()
    assert "example" not in captioned.url


def test_on_a_slow_connection_the_last_question_counts(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    open_fold(captioned, "Try another caption")
    network = captioned.context.new_cdp_session(captioned)
    slow = {"offline": False, "latency": 500, "downloadThroughput": -1, "uploadThroughput": -1}
    network.send("Network.emulateNetworkConditions", slow)
    for beginning in ("two", "a man"):
        captioned.get_by_label("Start with").first.fill(beginning)
        with captioned.expect_request("**/page/again"):
            captioned.get_by_label("Start with").first.press("Enter")
    expect_caption(captioned, saved_captioner.caption(generated(3), prefix="a man").text)
    captioned.wait_for_timeout(1500)
    expect(versions(captioned)).to_have_count(2)


def test_a_first_visit_plays_the_example_and_rests_on_a_word(server: Server, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(server.url)
    expect(panel(page, "Caption").locator(".play")).to_have_text("Stop", timeout=20_000)
    page.wait_for_function("document.querySelectorAll('#panel-caption .word.lit').length === 1")
    expect(panel(page, "Caption").locator(".play")).to_have_text("Play", timeout=60_000)
    expect(panel(page, "Caption").locator(".word.lit[aria-pressed=true]")).to_have_count(1)
    page.close()


def test_no_answer_of_the_server_is_a_sentence(captioned: Page, image_path: Path) -> None:
    captioned.route("**/page/photo", lambda route: route.abort())
    give(captioned, image_path)
    expect(panel(captioned, "Caption").get_by_role("alert")).to_contain_text("was not reached")
    captioned.unroute("**/page/photo")
    captioned.route("**/page/photo", lambda route: route.fulfill(status=502, body="<html>"))
    give(captioned, image_path)
    expect(panel(captioned, "Caption").get_by_role("alert")).to_contain_text("502")
    setup = json.loads(captioned.locator("[data-part=setup]").text_content() or "")
    assert setup["max_files"] == 500
