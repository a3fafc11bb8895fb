"""What a visitor does on the page, in a real browser."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


def upload(page: Page, path: Path) -> None:
    page.locator("#image input[type=file]").set_input_files(path)


def give(page: Page, box: str, paths: list[Path]) -> None:
    """Put files into a box, and wait until the server has them."""
    page.locator(f"{box} input[type=file]").set_input_files(paths)
    expect(page.locator(f"{box} tr.file")).to_have_count(len(paths))


def captions(page: Page) -> Locator:
    """The rows of captions on the page."""
    return page.locator("#attention_view .caption")


def text_of(row: Locator) -> str:
    return " ".join(row.locator(".words button").all_inner_texts())


def open_tab(page: Page, name: str) -> None:
    """A tab that has no room on a phone stands in a menu."""
    page.get_by_role("tab", name="Caption", exact=True).wait_for()
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name)
    tab.click()
