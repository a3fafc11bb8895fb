"""What a visitor has is kept, and what is shown belongs together, whatever came before."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from hf_captioner import ImageCaptioner
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
from tests.demo.serving import Server

pytestmark = needs_browser
on_a_desktop = pytest.mark.parametrize("page", [(1280, 900)], indirect=True, ids=["desktop"])


def test_the_brush_covers_what_is_under_it_whatever_the_photos_shape(page: Page, tmp_path: Path) -> None:
    generated(2, (240, 480)).save(tmp_path / "tall.png")
    give(page, tmp_path / "tall.png")
    expect(page).not_to_have_url(re.compile("example"))
    panel(page, "Caption").get_by_role("button", name="Cover", exact=True).click()
    canvas = panel(page, "Caption").locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    with page.expect_request("**/page/again") as asked:
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
        page.mouse.down()
        page.mouse.up()
    cells = asked.value.post_data_json["covered"]
    covered = [divmod(cell, 32) for cell in range(1024) if cells[cell]]
    assert covered and all(5 <= row <= 10 and 12 <= column <= 19 for row, column in covered), covered


@on_a_desktop
def test_a_photo_that_cannot_be_read_does_not_take_the_one_before_from_a_reload(
    captioned: Page, bad_path: Path
) -> None:
    text = text_of(captioned)
    give(captioned, bad_path)
    expect(panel(captioned, "Caption").get_by_role("alert")).to_be_visible()
    captioned.reload()
    expect_caption(captioned, text)


@on_a_desktop
def test_edited_alt_text_of_an_example_survives_a_reload(page: Page) -> None:
    page.get_by_label("Alt text (check before using)").first.fill("My words.")
    page.reload()
    expect(page.get_by_label("Alt text (check before using)").first).to_have_value("My words.")


@on_a_desktop
def test_back_leads_from_an_example_to_ones_own_photo(captioned: Page) -> None:
    text = text_of(captioned)
    captioned.get_by_role("button", name="Coffee").click()
    expect(captioned.locator("#example-coffee")).to_have_attribute("aria-pressed", "true")
    captioned.go_back()
    expect_caption(captioned, text)
    assert "example" not in captioned.url


@on_a_desktop
def test_a_photo_given_in_compare_is_compared(
    page: Page, image_path: Path, bad_path: Path, saved_captioner: ImageCaptioner
) -> None:
    open_tab(page, "Compare")
    give(page, image_path)
    expect(panel(page, "Compare").get_by_role("toolbar").first).to_have_attribute(
        "aria-label", saved_captioner.caption(image_path).text
    )
    give(page, bad_path)
    expect(panel(page, "Caption").get_by_role("alert")).to_be_visible()


@on_a_desktop
def test_an_unknown_example_is_the_first_one(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/?example=zebra&word=1")
    expect(words(page).first).to_be_visible()
    expect(page.locator("#example-camera")).to_have_attribute("aria-pressed", "true")


@on_a_desktop
def test_compare_opens_by_its_address_with_the_photo(server: Server, page: Page) -> None:
    page.goto(f"{server.url}/?example=cat#compare")
    expect(panel(page, "Compare").locator(".word").first).to_be_visible()
    assert text_of(page, "Compare") != ""


@on_a_desktop
def test_hiding_goes_on_from_the_chosen_caption(captioned: Page, saved_captioner: ImageCaptioner) -> None:
    words(captioned).nth(1).click()
    captioned.get_by_role("dialog").locator("li button:enabled").first.click()
    expect(versions(captioned)).to_have_count(2)
    versions(captioned).first.click()
    expect_caption(captioned, saved_captioner.caption(generated(3)).text)
    words(captioned).nth(1).click()
    captioned.get_by_role("dialog").get_by_role("button", name="Hide what this word looked at").click()
    expect(versions(captioned)).to_have_count(3)
    expect(versions(captioned).nth(2)).to_contain_text("With part of the photo covered")
    expect(versions(captioned).nth(2)).not_to_contain_text("tarting with")


def test_the_keyboard_stays_at_the_caption_when_it_is_rewritten(captioned: Page) -> None:
    words(captioned).first.focus()
    captioned.keyboard.press("Home")
    captioned.keyboard.press("Enter")
    captioned.get_by_role("dialog").locator("li button:enabled").first.press("Enter")
    expect(versions(captioned)).to_have_count(2)
    expect(panel(captioned, "Caption").locator(".word[aria-pressed=true]")).to_be_focused()


def test_a_phone_shows_the_brush_beside_the_photo(captioned: Page) -> None:
    panel(captioned, "Caption").get_by_role("button", name="Cover", exact=True).click()
    expect(panel(captioned, "Caption").get_by_role("button", name="Eraser")).to_be_in_viewport()


@on_a_desktop
def test_what_is_there_already_is_not_added_once_more(captioned: Page) -> None:
    open_fold(captioned, "Try another caption")
    captioned.get_by_label("Three different captions").first.check()
    for _ in range(2):
        with captioned.expect_response("**/page/again"):
            captioned.get_by_role("button", name="Write it").first.click()
        expect(panel(captioned, "Caption").locator(".reading")).to_have_attribute("aria-busy", "false")
        texts = versions(captioned).locator(".text").all_inner_texts()
        assert len(texts) == len(set(texts)) > 1


def test_a_question_that_is_left_leaves_no_skeleton(page: Page) -> None:
    open_tab(page, "Camera")
    page.get_by_role("button", name="Start the camera").click()
    expect(words(page, "Camera").first).to_be_visible()
    expect(panel(page, "Camera").get_by_label("Alt text (check before using)")).to_be_hidden()
    page.get_by_role("button", name="Freeze").click()
    expect(panel(page, "Camera").get_by_label("Alt text (check before using)")).to_be_visible()
    page.route("**/page/again", lambda route: None)  # never answered
    panel(page, "Camera").locator("summary", has_text="Try another caption").click()
    panel(page, "Camera").get_by_label("Longer").check()
    panel(page, "Camera").get_by_role("button", name="Write it").click()
    expect(panel(page, "Camera").locator(".skeleton")).to_be_visible()
    open_tab(page, "Caption")
    open_tab(page, "Camera")
    expect(panel(page, "Camera").locator(".skeleton")).to_be_hidden()
    expect(words(page, "Camera").first).to_be_visible()


@on_a_desktop
def test_correcting_what_needs_checking_keeps_the_card(page: Page, image_paths: list[Path], bad_path: Path) -> None:
    open_tab(page, "Batch")
    page.route(
        "**/page/row",
        lambda route: route.fulfill(
            json={"thumbnail": "data:,", "caption": {"caption": "a dog", "confidence": 0.01, "words": []}}
        ),
    )
    give(page, *image_paths[:2])
    expect(page.get_by_text("2 of 2")).to_be_visible()
    panel(page, "Batch").get_by_label("Needs checking (2)").check()
    box = panel(page, "Batch").get_by_label(f"Caption of {image_paths[0].name}")
    box.focus()
    page.keyboard.type("abc")
    expect(box).to_be_focused()
    assert "abc" in box.input_value()
    page.unroute("**/page/row")
    page.route("**/page/row", lambda route: route.abort())
    give(page, image_paths[2])
    expect(page.get_by_text("3 of 3, 1 without a caption")).to_be_visible()
    page.unroute("**/page/row")
    page.get_by_role("button", name="Try the failed again").click()
    expect(page.get_by_text("3 of 3", exact=True)).to_be_visible()


@on_a_desktop
def test_the_light_rests_on_a_word_of_every_new_caption(captioned: Page) -> None:
    open_fold(captioned, "Try another caption")
    captioned.get_by_label("Longer").first.check()
    captioned.get_by_role("button", name="Write it").first.click()
    expect(versions(captioned)).to_have_count(2)
    expect(panel(captioned, "Caption").locator(".word.lit[aria-pressed=true]")).to_have_count(1)
