"""What the page says of its captioner, and that nothing of a stranger's checkpoint becomes markup or is run."""

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_captioner import ImageCaptioner
from hf_captioner.demo.app import build_page, template
from hf_captioner.demo.limits import MAX_FILE_BYTES, MAX_FILES
from hf_captioner.demo.markup import EXAMPLES, LOW_CONFIDENCE, about, explanation_html, page_html, page_setup
from hf_captioner.hub.evaluation import Evaluation, Occlusion, Scores, TrainingSet
from tests.demo.test_card_view import HOSTILE, Elements, assert_harmless

BIRDS = Evaluation(
    trained_on=(TrainingSet("Birds", images=500, captions=2500, description="Photos of birds."),),
    scores=(Scores("Birds", "test", {"CIDEr": 0.42}, tokenization="PTB", command="evaluate birds", images=50),),
    occlusion=Occlusion(
        images=50,
        words=200,
        baseline=0.5,
        occluded={"most attended fifth": 0.1, "random fifth": 0.3, "least attended fifth": 0.4},
        changed={"most attended fifth": 0.9, "random fifth": 0.8, "least attended fifth": 0.7},
        mean_image="a bird on a branch",
        mean_image_cider=0.01,
    ),
    limits=("It takes every bird for a sparrow.", "And every tree for a bird."),
)
ATTACKS = [
    "<script>alert(1)</script>",
    "</p></section><img src=x onerror=alert(1)>",
    "{{1+1}} ${1+1} #{1+1} {%raw%}",
    "`${alert(1)}` \\u003cscript\\u003e \\",
    "{{#each value}}{{{this}}}{{/each}}",
    "<!-- setup --><!-- about --><!-- stage.html --><!-- explanation -->",
    "' onload='alert(1)' \" onload=\"alert(1)\"",
    "&lt;script&gt;&#123;&#123;1+1&#125;&#125;",
]


class Texts(Elements):
    """The text that a browser would show, beside the elements."""

    def __init__(self, html: str) -> None:
        self.text = ""
        super().__init__(html)

    def handle_data(self, data: str) -> None:
        self.text += data


def markup_of(captioner: ImageCaptioner, model: str | None = None) -> str:
    """The template from which Gradio makes the page in the browser."""

    async def built() -> gr.Blocks:  # where no loop runs, Gradio leaves one open
        return build_page(captioner, model=model)

    page = asyncio.run(built())
    (html,) = (block for block in page.blocks.values() if isinstance(block, gr.HTML))
    return str(html.html_template)


def text_in(html: str) -> str:
    return " ".join(Texts(html).text.split())


def setup_in(html: str) -> Any:
    (found,) = re.findall('data-part="setup"[^>]*>([^<]*)<', html)
    return json.loads(Texts(found).text)


def test_the_page_says_only_what_was_measured_of_its_own_model(tiny_captioner: ImageCaptioner) -> None:
    tiny_captioner.evaluation = BIRDS
    said, card = text_in(explanation_html(BIRDS)), about(tiny_captioner, "me/birds")
    assert "50 photos" in said and "sparrow" in said
    for share in ("nothing is covered 50 %", "looked at most is covered 10 %", "a random fifth is covered 30 %"):
        assert share.replace(" ", "") in said.replace(" ", "")
    assert card.startswith("# me/birds") and 'from_pretrained("me/birds")' in card
    assert "**Birds**" in card and "42.0" in card and "sparrow" in card
    for text in (said, card):
        assert "Flickr" not in text and "people and dogs" not in text and "skateboard" not in text


def test_the_page_says_nothing_of_what_was_not_measured(tiny_captioner: ImageCaptioner) -> None:
    nothing = text_in(explanation_html(Evaluation()))
    assert "a hint at the evidence, not proof" in nothing
    assert "%" not in nothing and "fifth" not in nothing and "What it knows" not in nothing
    limits_only = text_in(explanation_html(dataclasses.replace(BIRDS, occlusion=None)))
    assert limits_only.startswith(nothing) and "sparrow" in limits_only and "%" not in limits_only
    assert "What it knows" not in text_in(explanation_html(dataclasses.replace(BIRDS, limits=())))
    assert "fifth" not in about(tiny_captioner)


def test_one_photo_is_no_photos() -> None:
    assert BIRDS.occlusion is not None
    one = dataclasses.replace(BIRDS, occlusion=dataclasses.replace(BIRDS.occlusion, images=1))
    assert "Tested on 1 photo:" in text_in(explanation_html(one))


def test_the_javascript_is_told_what_the_server_takes(tiny_captioner: ImageCaptioner, checkpoint: Path) -> None:
    setup = setup_in(markup_of(tiny_captioner))
    assert [example["key"] for example in setup["examples"]] == list(EXAMPLES)
    assert [example["key"] for example in setup["examples"] if example["outside"]] == ["rocket"]
    assert (setup["max_files"], setup["max_file_bytes"]) == (MAX_FILES, MAX_FILE_BYTES)
    assert setup["low_confidence"] == LOW_CONFIDENCE
    other = markup_of(tiny_captioner, str(checkpoint))
    assert not any(example["outside"] for example in setup_in(other)["examples"]), "another may know rockets"
    assert setup_in(other)["model"] == checkpoint.name and str(checkpoint.parent) not in other


def test_every_part_of_the_page_is_filled(tiny_captioner: ImageCaptioner) -> None:
    page = markup_of(tiny_captioner)
    assert "<!--" not in page
    panels = [each["id"] for tag, each in Elements(page).found if each.get("role") == "tabpanel"]
    assert panels == [f"panel-{name}" for name in ("caption", "batch", "camera", "compare", "about")]


@pytest.mark.parametrize("attack", [*ATTACKS, HOSTILE])
def test_a_strangers_checkpoint_is_text_and_no_template(attack: str, tiny_captioner: ImageCaptioner) -> None:
    plain = Elements(markup_of(tiny_captioner, "me/birds")).found
    tiny_captioner.evaluation = dataclasses.replace(
        BIRDS, limits=(attack,), trained_on=(dataclasses.replace(BIRDS.trained_on[0], name=attack),)
    )
    tiny_captioner.card = f"# {attack}\n\n{attack}\n\n    {attack}\n\n| {attack} |\n|---|\n| {attack} |\n"
    for model in ("me/birds", attack):
        page = markup_of(tiny_captioner, model)
        assert not set("{`\\") & set(page), "Gradio runs what stands there"
        card = page.partition('class="model-card">')[2].partition("</section>")[0].partition("<section")[0]
        assert_harmless(card.removesuffix("</div>"))
        rest = page.replace(card, "")
        assert {tag for tag, _ in Elements(rest).found} <= {tag for tag, _ in plain} | {"ul", "li", "strong"}
        assert not any(name.startswith("on") for _, attributes in Elements(rest).found for name in attributes)
        assert setup_in(page)["model"] == model
    said = Texts(explanation_html(tiny_captioner.evaluation)).text
    assert attack in said, "a visitor reads it as it was written"
    tiny_captioner.card = None
    assert not set("{`\\") & set(markup_of(tiny_captioner, attack))


@settings(deadline=None, max_examples=60)
@given(st.text(), st.text(), st.text())
def test_whatever_a_checkpoint_says_the_page_stays_as_it_is(card: str, limit: str, name: str) -> None:
    evaluation = Evaluation(limits=(limit,))
    page = template(page_html(evaluation, card, page_setup(None) | {"model": name}))
    assert not set("{`\\") & set(page)
    assert setup_in(page)["model"] == name
    for part in ('data-part="setup"', 'id="panel-about"', 'class="model-card"'):
        assert page.count(part) == 1
