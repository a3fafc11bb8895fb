"""What the page's JavaScript computes, each module by itself in a real browser."""

import csv
import io
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from hf_captioner.bulk.printable import csv_cell
from hf_captioner.demo.recaption import MASK_SIZE
from tests.demo.browsing import needs_browser

pytestmark = [needs_browser, pytest.mark.parametrize("page", [(1280, 900)], indirect=True, ids=["desktop"])]


def run(page: Page, module: str, code: str, argument: Any = None) -> Any:
    """The value of an expression over a module `m` and an argument `x`."""
    load = f"import(new URL('page/{module}.js', document.baseURI))"
    return page.evaluate(f"async (x) => {{ const m = await {load}; return {code}; }}", argument)


def attention(*places: tuple[int, int], side: int = 8) -> list[list[float]]:
    """All of it shared by these cells, (row, column)."""
    cells = np.zeros((side, side))
    for place in places:
        cells[place] = 1 / len(places)
    return cells.tolist()


@pytest.mark.parametrize(
    ("place", "said"),
    [((0, 0), "upper left"), ((0, 4), "upper centre"), ((4, 4), "centre"), ((4, 7), "right"), ((7, 4), "lower centre")],
)
def test_where_a_word_looked_is_said(page: Page, place: tuple[int, int], said: str) -> None:
    assert run(page, "where", "m.where(x)", attention(place)) == f"mostly {said}"
    even = np.full((7, 7), 1 / 49).tolist()
    assert run(page, "where", "m.where(x)", even) == "all over the photo"


def test_the_fifth_that_a_word_looked_at_most_is_covered(page: Page) -> None:
    chance = np.random.default_rng(0)
    cells = chance.dirichlet(np.full(64, 0.3)).reshape(8, 8)
    covered = np.array(run(page, "where", "m.mostAttended(x)", cells.tolist())).reshape(MASK_SIZE, MASK_SIZE)
    assert 0.15 < covered.mean() < 0.25
    assert covered[:: MASK_SIZE // 8, :: MASK_SIZE // 8][np.unravel_index(cells.argmax(), cells.shape)] == 1
    seen = covered.astype(bool)[:: MASK_SIZE // 8, :: MASK_SIZE // 8]
    assert cells[seen].min() >= cells[~seen].max()


def caption_of(*words: str, at: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    return {
        "caption": " ".join(words),
        "confidence": 0.25,
        "words": [{"text": word, "probability": 0.5, "alternatives": [], "attention": attention(at)} for word in words],
    }


def test_it_rests_on_a_word_that_names_something(page: Page) -> None:
    assert run(page, "where", "m.strongestWord(x)", caption_of("a", "man", "in", "the")) == 1


def test_a_later_caption_marks_what_is_new(page: Page) -> None:
    before, after = caption_of("a", "dog", "runs"), caption_of("a", "brown", "dog", "sits")
    assert run(page, "wording", "m.changedWords(x[0], x[1])", [before, after]) == [False, True, False, True]


def test_captions_become_sentences_html_and_doubt(page: Page) -> None:
    assert run(page, "wording", "[' a dog', 'Is it?', ''].map(m.asSentence)") == ["A dog.", "Is it?", ""]
    snippet = run(page, "wording", "m.htmlSnippet(x[0], x[1])", ['"><script>.jpg', 'a "big" <b>dog</b>'])
    assert snippet == '<img src="&quot;&gt;&lt;script&gt;.jpg" alt="a &quot;big&quot; &lt;b&gt;dog&lt;/b&gt;">'
    assert run(page, "wording", "m.confidenceText(x, 0.3)", caption_of("a")) == "Low confidence (25 %)"
    assert run(page, "wording", "m.confidenceText(x, 0.2)", caption_of("a")) == "Confidence 25 %"
    assert "stop after 125" in run(page, "wording", "m.altTextNote('a'.repeat(126))")


def test_an_address_leads_to_where_it_came_from(page: Page) -> None:
    for place in (
        {"tab": "caption", "example": "cat", "word": 0},
        {"tab": "batch", "example": None, "word": None},
        {"tab": "about", "example": "dog & co", "word": None},
    ):
        there = run(page, "address", "m.placeOf(m.addressOf('http://a.b/c?lang=en&word=9#x', x))", place)
        assert there == place
        assert "lang=en" in run(page, "address", "m.addressOf('http://a.b/c?lang=en', x)", place)


def test_a_table_runs_no_formula_and_keeps_every_text(page: Page) -> None:
    texts = ["=1+1", "'=1", "+1", "-x", "@x", "\t=x", 'say "hi", you', "two\nlines", "plain", "1,5", "Ünïcode 😀"]
    lines = [{"file": text, "caption": "", "confidence": None, "problem": ""} for text in texts]
    table = run(page, "downloads", "m.DOWNLOADS['captions.csv'](x)", lines)
    cells = [row[0] for row in csv.reader(io.StringIO(table, newline=""))][1:]
    printable = [text for text in texts if "\n" not in text and "\t" not in text]
    found = dict(zip(texts, cells, strict=True))
    assert [found[text] for text in printable] == [csv_cell(text) for text in printable]
    assert all(cell.lstrip("'")[:1] not in "=+-@\t" or cell.startswith("'") for cell in cells)
