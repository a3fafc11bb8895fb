"""What a visitor does on the page, in a real browser."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


def give(page: Page, *files: Path | FilePayload) -> None:
    """Choose photos, as the page's file picker does; in the tab Caption one is captioned."""
    chosen = [str(file) if isinstance(file, Path) else file for file in files]
    page.locator("[data-part=files]").set_input_files(chosen)  # type: ignore[arg-type]


def panel(page: Page, name: str) -> Locator:
    return page.locator(f"#panel-{name.lower()}")


def words(page: Page, tab: str = "Caption") -> Locator:
    """The words of the chosen caption."""
    return panel(page, tab).locator(".word")


def text_of(page: Page, tab: str = "Caption") -> str:
    return " ".join(words(page, tab).all_inner_texts())


def versions(page: Page) -> Locator:
    """The photo's captions, where there are several."""
    return panel(page, "Caption").locator(".versions label")


def pixels(page: Page, tab: str = "Caption") -> str:
    """What the photo looks like now."""
    picture: str = panel(page, tab).locator("canvas").first.evaluate("canvas => canvas.toDataURL()")
    return picture


def expect_caption(page: Page, text: str) -> None:
    """The photo is captioned with this sentence."""
    expect(panel(page, "Caption").get_by_role("toolbar")).to_have_attribute("aria-label", text)
    expect(panel(page, "Caption").get_by_role("toolbar")).to_be_visible()


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def open_fold(page: Page, name: str) -> None:
    """Open a part that is closed at first."""
    fold = panel(page, "Caption").locator("details", has=page.get_by_text(name, exact=True)).first
    if fold.get_attribute("open") is None:
        fold.locator("summary").click()
