"""The tabs Batch, Camera, Compare and About in a real browser, on a desktop and on a phone."""

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from hf_captioner import ImageCaptioner
from tests.conftest import generated
from tests.demo.browsing import expect_caption, give, needs_browser, open_tab, panel, text_of, words

pytestmark = needs_browser


def cards(page: Page) -> Locator:
    return panel(page, "Batch").locator(".card")


def downloaded(page: Page, name: str, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    assert download.value.suggested_filename == name
    return download.value.path().read_text()


def test_many_photos_fill_cards_to_correct_and_download(
    page: Page, saved_captioner: ImageCaptioner, image_paths: list[Path], bad_path: Path
) -> None:
    open_tab(page, "Batch")
    expect(page.get_by_role("button", name="Download CSV")).to_be_hidden()
    give(page, bad_path, *image_paths)
    expect(page.get_by_text("6 of 6, 1 without a caption")).to_be_visible()
    expect(cards(page).first).to_contain_text(bad_path.name)
    expect(cards(page).first).to_contain_text("This file isn't an image we can open")
    texts = [caption.text for caption in saved_captioner.caption(image_paths)]
    for number, text in enumerate(texts, 1):
        expect(cards(page).nth(number).get_by_role("textbox")).to_have_value(text)
    cards(page).nth(1).get_by_role("textbox").fill('=a "<b>corrected</b>" caption')
    expect(cards(page).nth(1)).to_contain_text("edited")
    lines = [json.loads(line) for line in downloaded(page, "metadata.jsonl", "Download training data").splitlines()]
    assert lines[0] == {"file_name": image_paths[0].name, "text": '=a "<b>corrected</b>" caption'}
    assert [line["text"] for line in lines[1:]] == texts[1:]
    table = downloaded(page, "captions.csv", "Download CSV")
    assert table.splitlines()[0] == "file,caption,confidence,problem"
    assert '''"'=a ""<b>corrected</b>"" caption"''' in table
    rows: list[dict[str, Any]] = json.loads(downloaded(page, "captions.json", "Download JSON"))
    assert rows[0]["problem"].startswith("This file isn't") and rows[1]["confidence"] is None
    panel(page, "Batch").get_by_label("Needs checking").check()
    expect(cards(page).and_(page.locator(":visible"))).to_have_count(1)


def test_a_card_opens_where_the_model_looked(
    page: Page, saved_captioner: ImageCaptioner, image_paths: list[Path]
) -> None:
    open_tab(page, "Batch")
    give(page, *image_paths[:2])
    cards(page).nth(1).get_by_role("button", name="See where it looked").click()
    expect(page.get_by_role("tab", name="Caption")).to_have_attribute("aria-selected", "true")
    expect_caption(page, saved_captioner.caption(image_paths[1]).text)
    page.go_back()
    expect(page.get_by_role("tab", name="Batch")).to_have_attribute("aria-selected", "true")
    expect(cards(page)).to_have_count(2)


def test_a_batch_is_stopped_goes_on_and_is_cleared(page: Page, tmp_path: Path) -> None:
    generated(1, (3000, 2000)).save(tmp_path / "large.png")  # so that reading takes its time
    open_tab(page, "Batch")
    give(page, *[tmp_path / "large.png"] * 12)
    expect(page.get_by_text(re.compile(r"^[1-9]\d* of 12$"))).to_be_visible(timeout=60_000)
    panel(page, "Batch").get_by_role("button", name="Stop").click()
    stopped = page.get_by_text(re.compile(r"^Stopped: \d+ of 12$"))
    done = stopped.inner_text()
    assert 0 < int(done.split()[1]) < 12
    page.wait_for_timeout(1000)
    expect(stopped).to_have_text(done)
    panel(page, "Batch").get_by_role("button", name="Go on").click()
    expect(page.get_by_text("12 of 12")).to_be_visible(timeout=60_000)
    panel(page, "Batch").get_by_role("button", name="Clear").click()
    expect(cards(page)).to_have_count(0)
    expect(page.get_by_role("button", name="Choose photos")).to_be_focused()
    give(page, *[tmp_path / "large.png"] * 3)
    expect(page.get_by_text(re.compile("^[01] of 3$"))).to_be_visible()
    stop = "document.querySelector('[data-part=batch-%s]').click()"
    page.evaluate(f"() => {{ {stop % 'stop'}; {stop % 'go'}; }}")  # before what is stopped has ended
    expect(page.get_by_text("3 of 3")).to_be_visible(timeout=60_000)


def test_several_photos_given_at_once_are_a_batch(page: Page, image_paths: list[Path]) -> None:
    give(page, *image_paths[:3])
    expect(page.get_by_role("tab", name="Batch")).to_have_attribute("aria-selected", "true")
    expect(page.get_by_text("3 of 3")).to_be_visible()


def test_more_photos_than_a_batch_takes_are_left_out_by_a_sentence(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "small.png")
    open_tab(page, "Batch")
    page.route("**/page/row", lambda route: None)  # never answered
    give(page, *[tmp_path / "small.png"] * 502)
    expect(panel(page, "Batch").get_by_role("alert")).to_have_text(re.compile("At most 500 photos.* 2 more"))
    expect(cards(page)).to_have_count(500)


def test_the_camera_is_captioned_until_a_frame_is_kept(page: Page) -> None:
    open_tab(page, "Camera")
    page.get_by_role("button", name="Start the camera").click()
    expect(page.get_by_text(re.compile(r"[0-9.]+ captions a second"))).to_be_visible()
    expect(words(page, "Camera").first).to_be_visible()
    page.get_by_role("button", name="Freeze").click()
    expect(page.get_by_text("Frozen")).to_be_visible()
    expect(panel(page, "Camera").locator(".word[aria-pressed=true]")).to_have_count(1)
    text = text_of(page, "Camera")
    words(page, "Camera").nth(1).click()
    page.get_by_role("button", name="Hide what this word looked at").click()
    expect(panel(page, "Camera").locator(".versions label")).to_have_count(2)
    panel(page, "Camera").locator(".versions label").first.click()
    assert text_of(page, "Camera") == text
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text(re.compile(r"[0-9.]+ captions a second"))).to_be_visible()
    open_tab(page, "About")
    open_tab(page, "Camera")
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()


def test_a_camera_that_is_not_allowed_is_a_sentence(page: Page) -> None:
    refuse = "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', '%s'); }; }"
    open_tab(page, "Camera")
    for name, sentence in (("NotAllowedError", "not allowed here"), ("NotFoundError", "No camera was found")):
        page.evaluate(refuse % name)
        page.get_by_role("button", name="Start the camera").click()
        expect(panel(page, "Camera").get_by_role("alert")).to_contain_text(sentence)


def test_two_models_are_compared_on_the_photo_of_the_caption_tab(
    captioned: Page, checkpoint: Path, saved_captioner: ImageCaptioner
) -> None:
    text = text_of(captioned)
    open_tab(captioned, "Compare")
    captioned.get_by_label("Second model").fill(str(checkpoint))
    captioned.get_by_role("button", name="Compare", exact=True).click()
    first, second = (panel(captioned, "Compare").locator(f"[data-part=compare-{name}]") for name in ("first", "second"))
    expect(first.get_by_role("toolbar")).to_have_attribute("aria-label", text)
    expect(second.locator(".word").first).to_be_visible()
    expect(panel(captioned, "Compare").locator(".photo-frame")).to_have_count(1)
    captioned.get_by_label("Second model").fill("nobody/<b>nothing")
    captioned.get_by_role("button", name="Compare", exact=True).click()
    expect(second.get_by_role("alert")).to_contain_text("nobody/<b>nothing")
    expect(second.locator(".word").first).to_be_visible()
    expect(first.locator(".word").first).to_be_visible()
    captioned.reload()
    expect(captioned.get_by_label("Second model")).to_have_value("nobody/<b>nothing")


def test_the_page_says_what_the_card_says_and_how_to_use_it_elsewhere(page: Page, checkpoint: Path) -> None:
    open_tab(page, "About")
    expect(page.get_by_role("heading", name=checkpoint.name, exact=True)).to_be_visible()
    expect(page.get_by_role("heading", name="Limits and biases")).to_be_visible()
    expect(page.get_by_role("heading", name="Use it from Python, HTTP, MCP")).to_be_visible()
    expect(panel(page, "About").get_by_text(page.url.split("?")[0]).first).to_be_visible()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    panel(page, "About").get_by_role("button", name="Copy").nth(1).click()
    assert 'api_name="/caption"' in page.evaluate("navigator.clipboard.readText()")
