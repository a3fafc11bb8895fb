"""What a card claims: on how many images it was measured, what it was trained on, and its own name."""

import dataclasses
import re

import pytest
from huggingface_hub import ModelCard

from hf_captioner import ImageCaptioner
from hf_captioner.hub.card import render_card
from hf_captioner.hub.checkpoint import Description
from hf_captioner.hub.evaluation import (
    FEW_IMAGES,
    Calibration,
    Evaluation,
    Habits,
    Occlusion,
    Scores,
    TrainingSet,
    without_paths,
)
from hf_captioner.hub.packaged import bundled_checkpoint
from tests.hub.standin_hub import StandInHub

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

REGIONS = ("most attended fifth", "random fifth", "least attended fifth")


def evaluated(images: int) -> Evaluation:
    """Everything that can be measured, on this many images."""
    shares = dict.fromkeys(REGIONS, 0.5)
    return Evaluation(
        scores=(Scores("Birds", "validation", {"CIDEr": 0.8857}, "PTB", "hf-captioner evaluate DATA", images),),
        calibration=Calibration(0.1, 1.0, 0.9, (0.5,), (0.5,), (images,), ood_images=500),
        occlusion=Occlusion(images, 9, 0.5, shares, shares, "a bird", 0.1),
        habits=Habits(images, 5, 9, {"bird": 1.0}, {"bird": 1.0}),
    )


def card_of(captioner: ImageCaptioner, evaluation: Evaluation) -> ModelCard:
    return ModelCard(render_card(dataclasses.replace(captioner.description, evaluation=evaluation), "me/mine"))


def test_few_images_are_a_warning_and_no_result_to_compare(tiny_captioner: ImageCaptioner) -> None:
    few, enough = (card_of(tiny_captioner, evaluated(images)) for images in (FEW_IMAGES - 1, FEW_IMAGES))
    assert few.data.eval_results is None and "88.6" in few.text
    one = card_of(tiny_captioner, evaluated(1)).text
    assert "validation split, 1 image, " in one and "only 1 image." in one and "1 images" not in one
    assert few.text.count("**Measured on only 99 images.**") == 3 and "of only 99 images" in few.text
    (result,) = enough.data.eval_results
    assert result.metric_value == 88.57 and " only " not in enough.text.partition("## What it is for")[0]


def test_every_figure_says_on_how_many_images(tiny_captioner: ImageCaptioner) -> None:
    text = " ".join(card_of(tiny_captioner, evaluated(1234)).text.split())
    assert "Birds, validation split, 1,234 images" in text
    assert "captions of 1,234 validation images" in text
    assert "each half of 1,234 of them" in text and "against 500 images unlike them." in text
    assert "On 1,234 validation images it says" in text


def test_an_unrecorded_number_of_images_is_said_and_not_compared(tiny_captioner: ImageCaptioner) -> None:
    evaluation = evaluated(1000)
    scores = (dataclasses.replace(evaluation.scores[0], images=0),)
    card = card_of(tiny_captioner, dataclasses.replace(evaluation, scores=scores))
    assert card.data.eval_results is None and "number of images not recorded" in card.text


@pytest.mark.parametrize("origin", ["someone/base", "the captioner someone/base"])
def test_a_captioner_that_was_trained_further_names_its_base_its_data_and_its_language(
    online: StandInHub, captioner: ImageCaptioner, origin: str
) -> None:
    data = (TrainingSet("Flickr8k", 5999, 29995), TrainingSet("me/birds", 40, 80))
    captioner.evaluation = Evaluation(data, origin, language="de")
    captioner.push_to_hub("me/mine")
    card = ModelCard(online.model("me/mine").files()["README.md"].decode())
    assert (card.data.base_model, card.data.datasets, card.data.language) == ("someone/base", ["me/birds"], "de")
    assert "**me/birds**: 40 images with 80 captions" in card.text and f"Training began with {origin}." in card.text
    assert "English" not in card.text
    assert ImageCaptioner.from_pretrained("me/mine").evaluation == captioner.evaluation


@pytest.mark.parametrize("origin", ["ImageNet weights", "another captioner", "the captioner bundled with hf-captioner"])
def test_what_is_no_model_on_the_hub_is_no_base_model(tiny_captioner: ImageCaptioner, origin: str) -> None:
    card = card_of(tiny_captioner, Evaluation(initialized_from=origin))
    assert card.data.base_model is None and f"Training began with {origin}." in card.text
    assert card.data.language == "en"


def test_a_bare_name_is_pushed_and_named_under_its_owner(online: StandInHub, captioner: ImageCaptioner) -> None:
    captioner.push_to_hub("bare")
    text = online.model("me/bare").files()["README.md"].decode()
    assert '.from_pretrained("me/bare")' in text and "\n# me/bare\n" in text


def test_a_stranger_is_told_what_to_install(tiny_captioner: ImageCaptioner) -> None:
    install = re.search(r"```sh\npip install (.*)\n```", card_of(tiny_captioner, Evaluation()).text)
    assert install and install[1] in (bundled_checkpoint().parent.parent / "README.md").read_text().replace(
        "[demo]", ""
    )


def test_a_card_shows_no_place_of_the_machine(tiny_captioner: ImageCaptioner) -> None:
    command = "hf-captioner evaluate /home/ann/photos --model=../runs/best --save ~/out.json --dataset me/birds"
    scores = Scores("Birds", "validation", {"CIDEr": 0.5}, "PTB", command, 1000)
    text = card_of(tiny_captioner, Evaluation(scores=(scores,))).text
    assert "hf-captioner evaluate PATH --model=PATH --save PATH --dataset me/birds" in text and "ann" not in text
    assert without_paths("evaluate photos --model 'un", {}) == "hf-captioner"
    assert without_paths("evaluate photos --model=best", {"photos": "DATA", "best": "MODEL"}).endswith(
        "DATA --model=MODEL"
    )


def test_the_bundled_card_is_as_it_is_rendered_today() -> None:
    captioner = ImageCaptioner.from_pretrained()
    rendered = render_card(captioner.description, license_text=captioner.weights_license)
    assert (bundled_checkpoint() / "README.md").read_text() == rendered
    assert isinstance(captioner.description, Description) and captioner.card is None
