"""The model card as HTML. It may be a stranger's: nothing in it is run, sent or fetched; it has links and no more."""

import re

from markdown_it import MarkdownIt

LONGEST = 50_000
"""Characters of a card that are shown; reading twenty times as many could take ten seconds."""


def without_header(card: str) -> str:
    """A card without its YAML header, whether or not there is one that can be read."""
    return re.sub(r"\A---[ \t]*\r?\n.*?^---[ \t]*\r?(\n|\Z)", "", card, count=1, flags=re.DOTALL | re.MULTILINE)


def card_html(markdown: str) -> str:
    """Markdown (CommonMark with tables) as HTML. HTML in it is shown as the text that it is, and an image as its
    alternative text; so the page holds no form, script, style or image of the card's."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_cut(re.sub(r"<!-- Written by hf-captioner [^\n]*-->\s*\Z", "", markdown)))
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                child.type, child.tag, child.attrs = "text", "", {}
                child.content = f"[image: {child.content}]"
            elif child.type == "link_open":
                child.attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
    return str(parser.renderer.render(tokens, parser.options, {}))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n\n... The rest of this card is not shown."
