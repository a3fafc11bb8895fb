"""The real Hub client against a stand-in Hub: what is pushed comes back, and what goes wrong is one sentence."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, close_session, constants
from PIL import Image

from hf_captioner import CaptionerConfig, CheckpointError, GenerationConfig, ImageCaptioner
from hf_captioner.hub.card import is_generated, render_card
from hf_captioner.hub.checkpoint import MAX_BYTES, Description
from hf_captioner.hub.evaluation import Evaluation, Scores
from tests.hub.standin_hub import Repository, StandInHub, point_client_at

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

RESULTS = Scores(
    "Flickr8k",
    "validation",
    {"BLEU-4": 0.2146, "CIDEr": 0.5271},
    "PTB",
    "python -m hf_captioner.training.evaluate --data x",
    images=1000,
)
LICENCE = "You may use this Work for any non-commercial purpose.\n"


def measured(captioner: ImageCaptioner, scores: Scores) -> ImageCaptioner:
    captioner.evaluation = Evaluation(scores=(scores,))
    return captioner


def described(config: CaptionerConfig, evaluation: Evaluation | None = None) -> Description:
    return Description(config, GenerationConfig(), evaluation or Evaluation())


def refusal(name: str | Path, **options: object) -> str:
    """The sentence with which loading fails."""
    with pytest.raises(CheckpointError) as caught:
        ImageCaptioner.from_pretrained(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pushed_and_loaded_with_a_clean_cache_it_says_the_same(
    online: StandInHub, captioner: ImageCaptioner, image: Image.Image
) -> None:
    url = captioner.push_to_hub("me/mine")
    loaded = ImageCaptioner.from_pretrained("me/mine")
    before, after = (model.caption(image).to_dict(attention=True) for model in (captioner, loaded))
    assert before == after and before["caption"]
    assert url == f"{online.url}/me/mine/commit/{online.model('me/mine').commits()[-1].sha}"


def test_a_push_is_one_commit_of_exactly_the_checkpoint(online: StandInHub, captioner: ImageCaptioner) -> None:
    captioner.weights_license = LICENCE
    captioner.push_to_hub("me/mine", private=True, commit_message="First")
    repository = online.model("me/mine")
    (commit,) = repository.commits()
    assert (commit.title, repository.private) == ("First", True)
    assert set(commit.files) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "model.safetensors",
        "LICENSE",
    }
    assert commit.by_lfs == {"model.safetensors"}
    assert commit.files["LICENSE"].decode() == LICENCE
    assert CaptionerConfig.from_json(commit.files["config.json"].decode()) == captioner.config


def test_the_card_carries_the_measured_results_and_the_licence(online: StandInHub, captioner: ImageCaptioner) -> None:
    captioner.weights_license = LICENCE
    measured(captioner, RESULTS).push_to_hub("me/mine")
    card = ModelCard(online.model("me/mine").files()["README.md"].decode())
    assert card.data.model_name == "mine"
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        "BLEU-4": 21.46,
        "CIDEr": 52.71,
    }
    assert {(result.dataset_name, result.dataset_split) for result in card.data.eval_results} == {
        ("Flickr8k", "validation")
    }
    assert (card.data.license, card.data.license_link) == ("other", "LICENSE")
    assert '.from_pretrained("me/mine")' in card.text
    assert "| 21.5 | 52.7 |" in card.text and RESULTS.command in card.text


def test_nothing_changed_is_no_commit(online: StandInHub, captioner: ImageCaptioner) -> None:
    assert captioner.push_to_hub("me/mine") == captioner.push_to_hub("me/mine")
    assert len(online.model("me/mine").commits()) == 1


def test_a_card_that_a_person_edited_stays_unless_asked(online: StandInHub, captioner: ImageCaptioner) -> None:
    captioner.push_to_hub("me/mine")
    repository = online.model("me/mine")
    edited = repository.files()["README.md"].replace(b"## Results", b"## My own words\n\n## Results")
    repository.commit("Edit the card", {"README.md": edited})
    measured(captioner, RESULTS).push_to_hub("me/mine")
    assert repository.files()["README.md"] == edited
    assert b"0.5271" in repository.files()["evaluation.json"]
    captioner.push_to_hub("me/mine", overwrite_card=True)
    assert b"My own words" not in repository.files()["README.md"]


def test_a_card_that_nobody_edited_follows_the_results(online: StandInHub, captioner: ImageCaptioner) -> None:
    captioner.push_to_hub("me/mine")
    measured(captioner, RESULTS).push_to_hub("me/mine")
    assert b"52.7" in online.model("me/mine").files()["README.md"]


def test_a_card_written_in_the_folder_is_the_one_that_is_pushed(
    online: StandInHub, captioner: ImageCaptioner, tmp_path: Path
) -> None:
    captioner.save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("---\nlanguage: en\n---\nMine.\n")
    ImageCaptioner.from_pretrained(tmp_path / "out").push_to_hub("me/mine")
    assert online.model("me/mine").files()["README.md"] == b"---\nlanguage: en\n---\nMine.\n"


def test_a_card_whose_metadata_the_hub_refuses_stops_the_push(
    online: StandInHub, captioner: ImageCaptioner, tmp_path: Path
) -> None:
    captioner.card = "no metadata\n"
    with pytest.raises(CheckpointError, match=r"me/mine: Invalid metadata in README\.md"):
        captioner.push_to_hub("me/mine")
    assert online.model("me/mine").commits() == []


def test_a_branch_a_tag_or_a_pull_request(online: StandInHub, captioner: ImageCaptioner, image: Image.Image) -> None:
    captioner.push_to_hub("me/mine")
    repository = online.model("me/mine")
    repository.branches["v2"] = list(repository.commits())
    captioner.generation_config = dataclasses.replace(captioner.generation_config, max_length=3)
    captioner.push_to_hub("me/mine", branch="v2")
    assert ImageCaptioner.from_pretrained("me/mine", revision="v2").generation_config.max_length == 3
    assert ImageCaptioner.from_pretrained("me/mine").generation_config.max_length == 20
    assert captioner.push_to_hub("me/mine", create_pr=True).pr_url == f"{online.url}/me/mine/discussions/1"
    assert [len(repository.commits(name)) for name in ("main", "v2", "refs/pr/1")] == [1, 2, 2]
    assert refusal("me/mine", revision="v3") == "me/mine at revision v3: the Hub's repository has no such revision."
    with pytest.raises(CheckpointError, match=r"me/mine at branch v3: .*no such revision"):
        captioner.push_to_hub("me/mine", branch="v3")


def test_what_is_not_there_is_said_in_one_sentence(online: StandInHub) -> None:
    sentence = refusal("nobody/none")
    assert sentence.startswith("nobody/none: this is neither a folder here nor a repository on the Hub")
    assert "hf auth login" in sentence
    assert refusal("two words") == "two words: this is neither a folder here nor a Hub id; expected owner/name."


def test_what_looks_like_a_path_is_not_asked_of_the_hub(online: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none", "../none", "~/none", "a/b/c", Path("a/b")):
        assert refusal(name) == f"There is no folder {name}; expected a checkpoint's folder, or a Hub id owner/name."
    assert "is a file; expected the folder that holds config.json" in refusal(tmp_path / "config.json")
    refusal("")
    assert online.requests == []


def test_another_librarys_repository_is_refused_before_its_weights_are_fetched(online: StandInHub) -> None:
    online.repositories["models", "gpt2"] = repository = Repository()
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 12, "vocab_size": 50257}
    files = {"config.json": json.dumps(config).encode(), "tokenizer.json": b"{}", "model.safetensors": b"much"}
    repository.commit("Initial", files)
    sentence = refusal("gpt2")
    assert "another kind of model (model_type 'gpt2', keys model_type, architectures" in sentence
    assert not any("model.safetensors" in path for _, path in online.requests)


def test_a_repository_without_weights_names_them(online: StandInHub, captioner: ImageCaptioner) -> None:
    captioner.push_to_hub("me/mine")
    del online.model("me/mine").files()["model.safetensors"]
    assert refusal("me/mine") == "me/mine isn't a captioner: model.safetensors is missing."


def test_tokens(online: StandInHub, captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    captioner.push_to_hub("me/private", private=True)
    assert ImageCaptioner.from_pretrained("me/private").config == captioner.config
    assert "log in with `hf auth login`" in refusal("me/private", token=False, cache_dir=tmp_path / "other")
    assert "401, Invalid credentials" in refusal("me/private", token="hf_wrong", cache_dir=tmp_path / "third")
    for token in ("hf_wrong", False):
        with pytest.raises(CheckpointError, match=r"^me/new: the Hub refused \(401, .*hf auth login"):
            captioner.push_to_hub("me/new", token=token)
    with pytest.raises(CheckpointError, match=r"^other/new: the Hub refused \(403, .*use a token that may do this"):
        captioner.push_to_hub("other/new")
    with pytest.raises(CheckpointError, match="neither a folder here nor a Hub id"):
        captioner.push_to_hub("not a name")
    assert list(online.repositories) == [("models", "me/private")]


def test_without_a_network_the_cache_serves_and_else_one_sentence_says_so(
    online: StandInHub, captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    captioner.push_to_hub("me/mine")
    ImageCaptioner.from_pretrained("me/mine")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits 23 seconds in all between its attempts
    point_client_at("http://127.0.0.1:9", monkeypatch, tmp_path / "home")
    for options in ({}, {"local_files_only": True}):
        assert ImageCaptioner.from_pretrained("me/mine", **options).config == captioner.config
        assert refusal("me/other", **options).startswith("me/other: this is not a folder here nor in the cache")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert ImageCaptioner.from_pretrained("me/mine").config == captioner.config
    assert "the Hub was not reached (no network, HF_HUB_OFFLINE or local_files_only)" in refusal("me/other")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    with pytest.raises(CheckpointError, match=r"^me/mine: the Hub at http://127.0.0.1:9 was not reached \("):
        captioner.push_to_hub("me/mine")


def test_an_upload_that_breaks_off_leaves_the_repository_as_it_was(
    online: StandInHub, captioner: ImageCaptioner
) -> None:
    captioner.push_to_hub("me/mine")
    before = online.model("me/mine").commits()[-1]
    online.full = True
    with torch.no_grad():
        captioner.decoder.output.bias.add_(1)
    with pytest.raises(
        CheckpointError, match=r"^me/mine: Error while uploading 'model\.safetensors' to the Hub: .*403"
    ):
        captioner.push_to_hub("me/mine")
    assert online.model("me/mine").commits() == [before]


ROUTES = ("create", "preupload", "lfs_batch", "lfs_put", "commit")
FAULTS = {(route, status) for route in ROUTES for status in (0, 401, 404, 429, 500)}


@pytest.mark.parametrize(("route", "status"), sorted(FAULTS - {("create", 401)}))  # who may not create may still push
def test_whatever_fails_in_a_push_leaves_the_repository_as_it_was(
    online: StandInHub, captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch, route: str, status: int
) -> None:
    captioner.push_to_hub("me/mine")
    before = list(online.model("me/mine").commits())
    with torch.no_grad():
        captioner.decoder.output.bias.add_(1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    online.faults[route] = status
    with pytest.raises(CheckpointError, match=r"^me/mine: ") as caught:
        captioner.push_to_hub("me/mine")
    assert "\n" not in str(caught.value) and (str(status) in str(caught.value) or not status)
    advice = {401: "log in", 404: "check the spelling|try again", 429: "wait and try again", 500: "try again"}
    assert re.search(advice.get(status, "check the network|try again"), str(caught.value))
    assert online.model("me/mine").commits() == before
    online.faults.clear()
    captioner.push_to_hub("me/mine")
    assert len(online.model("me/mine").commits()) == len(before) + 1


def test_a_file_that_is_too_large_is_not_fetched(online: StandInHub, captioner: ImageCaptioner, tmp_path: Path) -> None:
    captioner.push_to_hub("me/large")
    most = MAX_BYTES["tokenizer.json"]
    large = online.model("me/large")
    large.commit("larger", {"tokenizer.json": b" " * (most + 1)})
    online.requests.clear()
    assert (
        refusal("me/large") == f"me/large: tokenizer.json has {most + 1:,} bytes; a captioner's has at most {most:,}."
    )
    fetched = {path.rpartition("/")[2] for method, path in online.requests if method == "GET" and "/resolve/" in path}
    assert fetched == {"config.json"}
    captioner.save_pretrained(tmp_path / "large")
    with (tmp_path / "large" / "model.safetensors").open("ab") as file:
        file.truncate((1 << 30) + 1)
    assert "model.safetensors has 1,073,741,825 bytes" in refusal(str(tmp_path / "large"))


def test_a_card_without_results_claims_none(tiny_config: CaptionerConfig) -> None:
    card = ModelCard(render_card(described(tiny_config)))
    assert card.data.eval_results is None and card.data.license is None
    assert "Nobody has measured this checkpoint yet" in card.text
    assert "does not record what it was trained on" in card.text
    assert "No licence was recorded" in card.text


@pytest.mark.parametrize(("old", "new"), [("", "\n"), ("## Licence", "## Terms"), ("Apache", "apache")])
def test_any_edit_makes_a_card_a_persons_own(tiny_config: CaptionerConfig, old: str, new: str) -> None:
    card = render_card(described(tiny_config))
    assert is_generated(card)
    assert not is_generated(card.replace(old, new) if old else card + new)
