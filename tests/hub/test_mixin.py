"""A captioner is a PyTorchModelHubMixin: whatever the Hub's users try works as they expect."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, ModelHubMixin
from PIL import Image

from hf_captioner import CheckpointError, ImageCaptioner
from hf_captioner.hub.evaluation import Evaluation, TrainingSet
from tests.hub.standin_hub import StandInHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    with StandInHub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        yield hub


@pytest.mark.parametrize("method", ["from_pretrained", "save_pretrained", "push_to_hub"])
def test_every_parameter_of_the_mixin_is_taken(method: str) -> None:
    """By name, or among the keywords that are handed on to the mixin."""
    wanted = inspect.signature(getattr(ModelHubMixin, method)).parameters
    found = inspect.signature(getattr(ImageCaptioner, method)).parameters
    takes_any = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in found.values())
    assert [name for name in wanted if name not in found and not takes_any] == []
    positional = [
        name for name, parameter in wanted.items() if parameter.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert list(found)[: len(positional)] == positional


def test_saving_can_push_at_once(
    online: StandInHub, tiny_captioner: ImageCaptioner, image: Image.Image, tmp_path: Path
) -> None:
    url = tiny_captioner.save_pretrained(
        tmp_path / "out", push_to_hub=True, repo_id="me/mine", commit_message="First", private=True, config=None
    )
    (commit,) = online.model("me/mine").commits()
    assert str(url).endswith(commit.sha) and commit.title == "First" and online.model("me/mine").private
    assert set(commit.files) == {path.name for path in (tmp_path / "out").iterdir()}
    loaded = ImageCaptioner.from_pretrained("me/mine")
    assert loaded.caption(image).text == ImageCaptioner.from_pretrained(tmp_path / "out").caption(image).text
    tiny_captioner.save_pretrained(tmp_path / "named", push_to_hub=True)
    assert online.model("me/named").commits()


def test_patterns_choose_what_is_pushed_and_what_goes(online: StandInHub, tiny_captioner: ImageCaptioner) -> None:
    tiny_captioner.push_to_hub("me/mine", ignore_patterns="*.md")
    assert "README.md" not in online.model("me/mine").files()
    online.model("me/mine").commit("notes", {"notes.txt": b"mine"})
    tiny_captioner.push_to_hub("me/mine", allow_patterns=["*.md"], delete_patterns=["*.txt"])
    files = online.model("me/mine").files()
    assert "README.md" in files and "notes.txt" not in files and "config.json" in files


def test_the_card_can_be_had_by_itself(tiny_captioner: ImageCaptioner) -> None:
    card = tiny_captioner.generate_model_card(repo_id="me/mine")
    assert isinstance(card, ModelCard) and card.data.library_name == "hf-captioner"
    assert 'from_pretrained("me/mine")' in card.text


def test_a_captioner_of_other_data_says_nothing_of_people_and_dogs(
    online: StandInHub, tiny_captioner: ImageCaptioner
) -> None:
    tiny_captioner.evaluation = Evaluation(
        trained_on=(TrainingSet("Birds of my garden", 40, 80, "Taken at dawn."),), limits=("It knows birds.",)
    )
    tiny_captioner.push_to_hub("me/birds")
    card = online.model("me/birds").files()["README.md"].decode()
    assert "**Birds of my garden**: 40 images with 80 captions. Taken at dawn." in card and "It knows birds." in card
    for word in ("Flickr8k", "dogs", "skateboard", "shirt", "Does attention", "## Confidence", "ImageNet", "CIDEr"):
        assert word not in card, word
    assert "Nobody has measured this checkpoint yet" in card


def test_a_failed_save_keeps_the_config_that_the_mixin_would_have_deleted(
    tiny_captioner: ImageCaptioner, tmp_path: Path
) -> None:
    tiny_captioner.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tiny_captioner.decoder.gate.bias.data[0] = float("nan")
    with pytest.raises(CheckpointError, match="float16 cannot hold"):
        tiny_captioner.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
