"""One command trains on one's own photographs: tuned, calibrated and scored, whatever stops it in between."""

import base64
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from hf_captioner import ImageCaptioner
from hf_captioner.cli import main
from hf_captioner.demo.markup import BROWSER
from hf_captioner.demo.questions import ask_row
from hf_captioner.hub.card import is_generated
from hf_captioner.hub.checkpoint import read_description
from hf_captioner.training import finish
from tests import forked
from tests.conftest import SENTENCES, generated, write_table
from tests.demo.browsing import CHROMIUM, needs_browser

RECIPE = "mixed_precision: 'no'\nbatch_size: 8\nstages: [{epochs: 1, learning_rate: 0.001, warmup: 0}]\n"

KILLS = {
    "caption_records": [],
    "tune": [],
    "keep_confidence": ["before", "stage"],
    "measure_attention": ["before", "stage", "settings"],
    "update_evaluation": ["before", "stage", "settings", "confidence"],
}
"""The function after which a run is killed -> how the messages begin of what is done by then, and not repeated."""

pytestmark = pytest.mark.usefixtures("no_java")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("birds")
    write_table(folder, ["train"] * 12 + ["validation"] * 10)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def arguments(data: Path, out: Path, checkpoint: Path) -> list[str]:
    table = str(data / "captions.csv")
    return ["train", table, "--out", str(out), "--recipe", str(data / "recipe.yaml"), "--init", str(checkpoint)]


def metrics(printed: str) -> dict[str, list[float]]:
    """Before and after, by metric, of the last lines of `train`."""
    rows = (line.split() for line in printed.splitlines() if " -> " in line)
    return {name: [float(before), float(after)] for name, before, _, after in rows}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_command_leaves_a_captioner_tuned_calibrated_tested_and_scored(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finish, "FEWEST_TO_TUNE", 10)
    monkeypatch.setattr(finish, "TESTED_IMAGES", 8)
    out, best = tmp_path / "out", tmp_path / "out" / "best"
    assert main(arguments(data, out, checkpoint)) == 0
    told = capsys.readouterr()
    found = ImageCaptioner.from_pretrained(best)
    evaluation, card = found.evaluation, (best / "README.md").read_text()
    assert evaluation.calibration is not None and sum(evaluation.calibration.captions) == 10
    assert found.caption(generated(0)).confidence is not None
    assert evaluation.occlusion is not None and evaluation.occlusion.images == 8
    (scores,) = evaluation.scores
    assert (scores.dataset, scores.split, scores.images) == ("an unnamed data set", "validation", 10)
    assert scores.command == "hf-captioner train DATA --out DIR --recipe FILE --init MODEL"
    assert is_generated(card) and "Measured on only 10 images" in card and str(tmp_path) not in card
    assert f"num_beams {found.generation_config.num_beams}, length_penalty" in told.err
    assert f"at {found.config.image_size} pixels, the best of " in told.err

    assert f"The captioner lies in {best}." in told.out and "on 10 validation images" in told.out
    assert f"hf-captioner push OWNER/NAME --model {best}" in told.out
    measured = metrics(told.out)
    for place, model in enumerate((checkpoint, best)):
        assert main(["evaluate", str(data / "captions.csv"), "--model", str(model)]) == 0
        names, values = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[:3:2]]
        again = dict(zip(names, map(float, values), strict=True))
        assert {name: pair[place] for name, pair in measured.items()} == {name: again[name] for name in measured}
    assert set(measured) == {"BLEU-4", "ROUGE-L", "CIDEr"}


def test_killed_between_any_two_steps_it_repeats_only_that_one(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Each time the step has changed the checkpoint, and nothing says so yet: the worst moment."""
    flags, without_java = arguments(data, tmp_path / "out", checkpoint), {"PATH": os.environ["PATH"]}
    command = "tests.training.killed_finishing"
    for function, done in KILLS.items():
        killed = forked.run(command, *flags, environment=without_java | {"KILL_AFTER": function})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not [said for said in done if f"hf-captioner: {said}" in killed.stderr]
    last = forked.run(command, *flags, environment=without_java)
    assert last.returncode == 0 and " -> " in last.stdout, last.stderr
    assert "confidence:" not in last.stderr and "epoch" not in last.stderr

    whole = forked.run(command, *arguments(data, tmp_path / "whole", checkpoint), environment=without_java)
    assert whole.returncode == 0, whole.stderr
    one, other = (read_description(tmp_path / name / "best") for name in ("out", "whole"))
    assert one == other
    assert metrics(last.stdout) == metrics(whole.stdout) != {}


def test_a_finished_run_says_so_in_a_sentence_and_changes_nothing(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, best = arguments(data, tmp_path / "out", checkpoint), tmp_path / "out" / "best"
    assert main(flags) == 0
    before = files(best)
    capsys.readouterr()
    assert main(flags) == 0
    told = capsys.readouterr()
    assert told.out == "" and files(best) == before
    (line,) = [line.rpartition("\r")[2] for line in told.err.splitlines() if "hf-captioner" in line]
    assert line == f"hf-captioner: {tmp_path / 'out'} holds a finished run; its captioner lies in {best}."


@pytest.mark.parametrize("images", [3, 40])
def test_few_photographs_leave_out_what_needs_more_and_say_so(images: int, checkpoint: Path, tmp_path: Path) -> None:
    """Of forty, four validate. Nothing but the folder is given: the recipe is the one for few."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = [{"file_name": f"{index}.png", "text": SENTENCES[index % 4]} for index in range(images)]
    for index in range(images):
        generated(index).save(folder / f"{index}.png")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    flags = ["--out", out, "--init", checkpoint, "--device", "cpu"]
    told = forked.run("hf_captioner.cli", "train", folder, *flags, environment={"PATH": os.environ["PATH"]})
    assert told.returncode == 0, told.stderr
    tenth = max(1, images // 10)
    assert f"{images - 2 * tenth} image{'s' * (images > 3)} to train on, {tenth} to validate" in told.stderr
    assert f"kept in {out / 'splits.json'}" in told.stderr and "recipe further_few.yaml" in told.stderr
    assert f"settings: left out. Found {tenth} validation image" in told.stderr
    assert f"confidence: left out. Found {tenth} validation image" in told.stderr
    assert "chance moves the scores far" in told.stdout
    found = ImageCaptioner.from_pretrained(out / "best")
    assert found.evaluation.scores[0].images == tenth and found.evaluation.calibration is None
    assert found.generation_config == ImageCaptioner.from_pretrained(checkpoint).generation_config


def metadata_of(lines: list[dict[str, Any]]) -> str:
    """The metadata.jsonl that the page makes of a batch, in a browser."""
    module = base64.b64encode((BROWSER / "downloads.js").read_bytes()).decode()
    code = "([url, lines]) => import(url).then(({ DOWNLOADS }) => DOWNLOADS['metadata.jsonl'](lines))"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        content: str = browser.new_page().evaluate(code, [f"data:text/javascript;base64,{module}", lines])
        browser.close()
    return content


@needs_browser
def test_the_file_that_the_page_writes_trains_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    """With a photograph that could not be read, a caption corrected and one emptied, as a visitor leaves them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(12):
        generated(index).save(folder / f"photo {index}.png")
    captioner, photos = ImageCaptioner.from_pretrained(checkpoint), sorted(folder.iterdir())
    captions = [ask_row(captioner, path.read_bytes())(lambda: False)["caption"]["caption"] for path in photos]
    captions[0], captions[1] = "A black dog jumps over the «fence» .", ""
    (folder / "torn.png").write_bytes(b"not an image")
    lines = [{"file": path.name, "caption": caption} for path, caption in zip(photos, captions, strict=True)]
    (folder / "metadata.jsonl").write_text(metadata_of([*lines, {"file": "torn.png", "caption": ""}]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    flags = ["--out", str(tmp_path / "out"), "--recipe", str(recipe), "--init", str(checkpoint)]
    assert main(["train", str(folder), *flags]) == 0
    splits = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert set(splits) == {f"photo {index}.png" for index in range(12)} - {photos[1].name}
    found = ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation
    assert found.trained_on[-1].images == 9 and found.scores[0].images == 1


def test_photographs_without_captions_are_told_how_to_get_some_and_that_works(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in folders below, where two photographs have one name."""
    folder = tmp_path / "my photos"
    for index in range(12):
        place = folder / str(index % 2)
        place.mkdir(parents=True, exist_ok=True)
        generated(index).save(place / f"{index // 2}.png")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    train = ["train", str(folder), "--out", str(tmp_path / "out"), "--init", str(checkpoint)]
    assert main([*train, "--recipe", str(recipe)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{folder} holds 12 images and no captions to train on" in error
    table = folder / "captions.csv"
    assert f"`hf-captioner caption '{folder}' --out '{table}'`" in error
    assert main(["caption", str(folder), "--out", str(table), "--model", str(checkpoint)]) == 0
    assert main([*train, "--recipe", str(recipe)]) == 0
    assert ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation.trained_on[-1].images == 10


def test_one_photograph_is_one_sentence(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generated(0).save(tmp_path / "0.png")
    (tmp_path / "captions.csv").write_text(f"path,caption\n0.png,{SENTENCES[0]}\n")
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "out"), "--init", str(checkpoint)]) == 1
    error = capsys.readouterr().err
    assert error.count("hf-captioner:") == 1 and "found 0 and 1; give more" in error


def test_a_captioner_without_attention_is_not_tested_for_it(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    model = "{encoder: resnet18, encoder_layer: layer2, image_size: 64, hidden_size: 16, attention: none}"
    recipe.write_text(f"{RECIPE}model: {model}\nmin_count: 1\n")
    small = Path(shutil.copytree(data, tmp_path / "data"))
    small.joinpath("captions.csv").write_text(
        "\n".join([*(data / "captions.csv").read_text().splitlines()[:13], f"15.png,{SENTENCES[0]},validation"])
    )
    flags = ["--out", str(tmp_path / "out"), "--recipe", str(recipe), "--backbone", "random"]
    assert main(["train", str(small), *flags]) == 0
    found = ImageCaptioner.from_pretrained(tmp_path / "out" / "best").evaluation
    assert found.occlusion is None and found.scores[0].images == 1
