"""The tabs Batch, Camera and Compare in a real browser, on a desktop and on a phone."""

import json
import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from hf_captioner import ImageCaptioner
from hf_captioner.demo.tab_batch import COLUMN_WIDTHS
from tests.conftest import generated
from tests.demo.browsing import give, needs_browser, open_tab

pytestmark = needs_browser


def test_many_images_fill_a_table(
    page: Page, saved_captioner: ImageCaptioner, image_paths: list[Path], bad_path: Path
) -> None:
    open_tab(page, "Batch")
    give(page, "#files", [bad_path, *image_paths])
    expect(page.get_by_role("button", name="Upload more")).to_be_visible()
    page.get_by_role("button", name="Caption all").click()
    expect(page.get_by_text("6 of 6, 1 without a caption")).to_be_visible()
    expect(cell(page, 0, "file")).to_have_text(bad_path.name)
    expect(cell(page, 0, "problem")).to_contain_text("This file isn't an image")
    texts = [caption.text for caption in saved_captioner.caption(image_paths)]
    assert [line["text"] for line in metadata(page)] == texts
    cell(page, 1, "caption").dblclick()
    editor = cell(page, 1, "caption").locator("textarea, input")
    expect(editor).to_be_focused()  # until then what is typed is lost
    editor.fill("a <b>corrected</b> caption")
    editor.press("Enter")
    expect(cell(page, 1, "caption")).to_contain_text("a <b>corrected</b> caption")
    lines = metadata(page)
    assert lines[0] == {"file_name": image_paths[0].name, "text": "a <b>corrected</b> caption"}


def cell(page: Page, row: int, column: str) -> Locator:
    return page.get_by_test_id(f"cell-{row}-{list(COLUMN_WIDTHS).index(column)}")


def metadata(page: Page) -> list[dict[str, str]]:
    """The lines of the metadata.jsonl that is downloaded."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download training data").click()
    assert download.value.suggested_filename == "metadata.jsonl"
    return [json.loads(line) for line in download.value.path().read_text().splitlines()]


def test_a_batch_is_stopped_and_what_it_has_is_downloaded(page: Page, tmp_path: Path) -> None:
    generated(1, (3000, 2000)).save(tmp_path / "large.png")  # so that reading takes its time
    open_tab(page, "Batch")
    give(page, "#files", [tmp_path / "large.png"] * 200)
    page.get_by_role("button", name="Caption all").click()
    expect(page.get_by_text(re.compile(r"^Captioning: \d+ of 200$"))).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Stop").click()
    stopped = page.get_by_text(re.compile(r"^Stopped: \d+ of 200$"))
    done = stopped.inner_text()
    assert len(metadata(page)) == int(done.split()[1]) < 200
    expect(stopped).to_have_text(done)
    expect(page.get_by_text("Error", exact=True)).to_have_count(0)


def test_the_camera_is_captioned_again_and_again(page: Page) -> None:
    open_tab(page, "Camera")
    page.get_by_text("Click to Access Webcam").click()
    page.locator("video").evaluate("video => video.readyState > 1 || new Promise(go => (video.onloadeddata = go))")
    page.get_by_role("button", name="Record").or_(page.get_by_text("Record")).first.click()
    expect(page.get_by_text(re.compile(r"[0-9.]+ captions a second"))).to_be_visible()
    expect(page.get_by_label("Caption", exact=True)).not_to_have_value("")


def test_two_models_are_compared(page: Page, checkpoint: Path, image_path: Path) -> None:
    open_tab(page, "Compare")
    page.locator("#compared input[type=file]").set_input_files(image_path)
    expect(page.locator("#compared img")).to_be_visible()
    page.get_by_label("Second model").fill(str(checkpoint))
    page.get_by_role("button", name="Compare").click()
    for number in (1, 2):
        expect(page.locator(f"#model-{number} .caption")).to_have_count(1)
    page.get_by_label("Second model").fill("nobody/<b>nothing")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("[data-testid=toast-body]").first).to_contain_text("nobody/<b>nothing")
    expect(page.locator("#model-2 .caption")).to_have_count(1)
