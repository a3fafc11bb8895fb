"""What README.md and docs/ show works as it stands there, and the numbers they quote are the checkpoint's."""

import argparse
import ast
import contextlib
import dataclasses
import glob
import importlib
import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_captioner import CaptionerConfig, GenerationConfig, ImageCaptioner, cli
from hf_captioner.config import ConfidenceConfig, ValidatedConfig
from hf_captioner.demo import tab_batch, uploads
from hf_captioner.hub import evaluation
from hf_captioner.hub.evaluation import Evaluation
from hf_captioner.hub.packaged import bundled_checkpoint
from hf_captioner.training.recipe import Recipe
from tests.bulk.archive import data_set
from tests.conftest import generated, write_table
from tests.demo.serving import demo
from tests.hub.standin_hub import StandInHub
from train.ablation import read_rows, table

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
PAGE_URL = "http://127.0.0.1:7860"
"""Where the page answers in the examples."""

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def prose_of(name: str) -> str:
    """A page's text with every run of white space as one space."""
    return " ".join(text_of(name).split())


def title(page: Path) -> str:
    return page.stem


# -- examples ----------------------------------------------------------------------------------------------------------


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Each block of Python, and the block of text right after it: what it prints."""
    found = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", page.read_text(encoding="utf-8"), re.DOTALL)
    return [(code, printed or None) for code, printed in found]


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandInHub]:
    with StandInHub() as standin:
        standin.use(monkeypatch, tmp_path / "home")
        yield standin


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the examples run: with the images that they name."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for path in (ROOT / "space" / "examples").glob("*.jpg"):
        shutil.copy(path, here)
    for name in ("holiday", "shards"):
        (here / name).mkdir()
    for name in ("dog.jpg", "holiday/a.jpg", "holiday/b.jpg"):
        generated(1).save(here / name)
    with tarfile.open(here / "shards" / "0.tar", "w") as tar:
        tar.add("dog.jpg")
    return here


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=title)
def test_every_python_example_prints_what_the_page_says(
    page: Path, folder: Path, online: StandInHub, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, Any] = {}

    def run(url: str) -> None:
        for code, printed in examples(page):
            exec(compile(code.replace(PAGE_URL, url), page.name, "exec"), namespace)
            said = capsys.readouterr().out
            assert printed is None or said == printed, code

    if PAGE_URL in "".join(code for code, _ in examples(page)):
        with demo(bundled_checkpoint(), folder) as server:
            run(server.url)
    else:
        run(PAGE_URL)


def test_the_notebook_runs_and_says_what_is_stored_in_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells in order in one namespace, as a notebook does it; the value of a cell's last line is shown."""
    monkeypatch.chdir(NOTEBOOK.parent)
    namespace: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            code = ast.parse("".join(cell["source"]))
            last = code.body.pop() if isinstance(code.body[-1], ast.Expr) else None
            exec(compile(code, NOTEBOOK.name, "exec"), namespace)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), NOTEBOOK.name, "eval"), namespace)
                shows_itself = ("_repr_html_", "_repr_png_")
                assert value is None or any(getattr(value, name, lambda: None)() for name in shows_itself)
            stored = "".join("".join(output["text"]) for output in cell["outputs"])
            assert capsys.readouterr().out == stored, cell["source"]


# -- commands ----------------------------------------------------------------------------------------------------------

OTHERS = {"accelerate", "cd", "find", "git", "jupyter", "pip", "ray"}
"""Programs of others that the pages name."""


def commands(page: Path) -> Iterator[list[str]]:
    """Every command of the page's shell blocks, and those of ours in its text, as a list of words."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    lines += re.findall(r"`((?:hf-captioner|python -m) [^`\s]+ [^`]+)`", text)
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in [*words, ";"]:
            if word in ("|", "&&", ";"):
                command = command[: command.index(">")] if ">" in command else command
                while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                    del command[0]
                if command:
                    yield command
                command = []
            else:
                command.append(word)


class Parsed(Exception):
    """A command's flags and arguments were understood."""


@pytest.fixture
def only_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(*arguments: Any, **more: Any) -> None:
        parse(*arguments, **more)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)


def command_of(module: str) -> Callable[[list[str]], object]:
    name = "hf_captioner.cli" if module == "hf_captioner" else module
    main: Callable[[list[str]], object] = importlib.import_module(name).main
    return main


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_every_command_is_understood(page: Path, only_parsing: None, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(page):
        program, *arguments = command
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", text_of("Makefile"), re.MULTILINE), command
            continue
        if program == "accelerate" and "-m" in arguments:
            program, arguments = "python", arguments[arguments.index("-m") :]
        if program == "python":
            assert arguments[0] == "-m", command
            module, *arguments = arguments[1:]
        elif program == "hf-captioner":
            module = "hf_captioner"
        else:
            assert program in OTHERS, command
            continue
        with pytest.raises((Parsed, SystemExit)) as end:
            command_of(module)(arguments)
        assert not getattr(end.value, "code", 0), f"{shlex.join(command)}: {capsys.readouterr().err}"


SERVER = "demo"
"""The command of ours that does not end; tests/demo runs it."""


def run_line(words: list[str]) -> int:
    """`hf-captioner ...` as a shell runs it: file names are expanded, `> FILE` takes what it prints."""
    target = io.StringIO()
    if ">" in words:
        *words, _, path = words
        target = Path(path).open("w")  # type: ignore[assignment]  # noqa: SIM115
    expanded = [name for word in words[1:] for name in (sorted(glob.glob(word)) if "*" in word else [word])]  # noqa: PTH207
    with target, contextlib.redirect_stdout(target):
        return cli.main(expanded)


def test_the_blocks_of_the_readme_and_of_scale_run_in_order_in_one_folder(
    folder: Path, online: StandInHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the bundled captioner; what fetches the package from the network, the page's server and Ray are left out."""
    (folder / "archive").mkdir()
    generated(3).save(folder / "archive" / "c.jpg")
    data_set(2).to_parquet(folder / "photos.parquet")
    (folder / "DATA").mkdir()
    write_table(folder / "DATA", ["train"] * 8 + ["validation"] * 4, kinds=4)
    namespace: dict[str, Any] = {}
    ran = []
    pages = text_of("README.md") + text_of("docs/scale.md")
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", pages, re.DOTALL):
        if kind == "python":
            exec(compile(block, "a page", "exec"), namespace)
            continue
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "hf-captioner" and words[1] != SERVER and "--engine" not in words:
                assert run_line(words) == 0, f"{line}: {capsys.readouterr().err}"
                ran.append(words[1])
    assert {"caption", "train", "evaluate", "push"} <= set(ran)
    assert ("models", "me/mine") in online.repositories


# -- links and names ---------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, NOTEBOOK], ids=title)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, fragment = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def test_every_page_is_reached_from_the_readme() -> None:
    links = re.findall(r"\]\((docs/[^)#]+)", text_of("README.md"))
    assert {ROOT / link for link in links} == {*PAGES[1:], NOTEBOOK}


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").split()) <= 1000


def test_every_file_of_the_package_has_its_line_in_the_architecture() -> None:
    page = text_of("docs/architecture.md")
    package = ROOT / "hf_captioner"
    files = [path for path in package.rglob("*.py") if path.name != "__init__.py" or path.parent == package]
    assert not [path.relative_to(ROOT) for path in files if f"`{path.name}`" not in page]


# -- the checkpoint ----------------------------------------------------------------------------------------------------

OBJECTS: dict[str, type[ValidatedConfig]] = {
    "config.json": CaptionerConfig,
    "confidence": ConfidenceConfig,
    "generation_config.json": GenerationConfig,
    "evaluation.json": Evaluation,
    "trained_on": evaluation.TrainingSet,
    "scores": evaluation.Scores,
    "calibration": evaluation.Calibration,
    "occlusion": evaluation.Occlusion,
    "habits": evaluation.Habits,
}
"""Heading of the page on the checkpoint's format -> the class whose fields are the keys below it."""


def default_of(field: dataclasses.Field[Any]) -> str:
    return "required" if field.default is dataclasses.MISSING else f"`{json.dumps(field.default)}`"


@pytest.mark.parametrize("heading", OBJECTS)
def test_every_key_of_a_checkpoint_is_documented_with_its_default(heading: str) -> None:
    section = re.split(rf"^##+ {heading}$", text_of("docs/checkpoint.md"), flags=re.MULTILINE)[1]
    section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
    found = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .*\|$", section, re.MULTILINE))
    kind = OBJECTS[heading]
    expected = {field.name: default_of(field) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if heading.endswith(".json"):
        expected |= {name: f"always `{json.dumps(value)}`" for name, value in kind.header.items()}
    assert found == expected


def test_the_numbers_are_the_bundled_checkpoints() -> None:
    description = ImageCaptioner.from_pretrained().description
    measured, accuracy, readme = description.evaluation, prose_of("docs/accuracy.md"), prose_of("README.md")
    occlusion, calibration, habits = measured.occlusion, measured.calibration, measured.habits
    assert occlusion is not None and calibration is not None and habits is not None
    scores = next(scores for scores in measured.scores if (scores.dataset, scores.split) == ("Flickr8k", "validation"))
    percent = {name: f"{100 * value:.1f}" for name, value in scores.metrics.items()}
    assert f"| {' | '.join(percent)} | |{'---|' * len(percent)} | {' | '.join(percent.values())} |" in accuracy
    for name in ("BLEU-4", "METEOR", "CIDEr"):
        assert f"{name} {percent[name]}" in readme
    for page in (accuracy, readme):
        assert f"{scores.images:,} validation images" in page
        assert f"{occlusion.baseline:.3f}" in page
    for region, probability in occlusion.occluded.items():
        assert f"| {region} | {probability:.3f} | {100 * occlusion.changed[region]:.0f} % |" in accuracy
        assert region.startswith("least") or f"{probability:.3f}" in readme
    assert f"{occlusion.words:,} content words" in accuracy
    assert f'"{occlusion.mean_image}": CIDEr {100 * occlusion.mean_image_cider:.1f}' in accuracy
    bins = zip(calibration.predicted, calibration.observed, calibration.captions, strict=True)
    rows = " ".join(f"| {predicted:.2f} | {observed:.2f} | {count} |" for predicted, observed, count in bins)
    assert f"| confidence | better than the median | captions | |---|---|---| {rows} " in accuracy
    assert f"calibration error is {calibration.error:.3f}" in accuracy
    assert f"ROC curve is {calibration.auroc_correct:.2f}" in accuracy
    assert f"{calibration.auroc_ood:.2f} for validation images" in accuracy
    for said, written in ((habits.said["man"], habits.written["man"]), (habits.words_said, habits.words_written)):
        assert re.search(rf"says .*{said:.0f} .*writes?.* {written:,.0f}", accuracy)
    for agreed, so, other in (habits.men, habits.women):
        assert re.search(rf"{agreed} .*so for {so} and .* for {other}\b", accuracy)
    assert f"{description.config.vocabulary_size:,} words" in accuracy
    assert f"{description.config.image_size} pixels" in accuracy


def test_the_ablation_is_the_table_of_its_json() -> None:
    rows, _ = read_rows(ROOT / "train" / "recipes" / "ablation.yaml")
    found = json.loads(text_of("train/recipes/ablation.json"))
    assert f"\n\n{table(rows, found['results'], found['not measured'], found['times'])}\n" in text_of(
        "docs/ablation.md"
    )


def test_the_classic_captioners_are_a_line_each(tmp_path: Path) -> None:
    rows = re.findall(r"^\| .*`(\{encoder.*\})` \|$", text_of("docs/training.md"), re.MULTILINE)
    assert len(rows) >= 4
    for row in rows:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"model: {row}\nstages: [{{epochs: 1, learning_rate: 0.001}}]\n")
        assert Recipe.read(recipe).captioner_config(1000).encoder in row


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_pages_limits_are_as_stated() -> None:
    readme, page = prose_of("README.md"), prose_of("docs/page.md")
    assert f"{tab_batch.MAX_FILES} photos" in readme and f"{tab_batch.MAX_FILES} photos" in page
    assert f"{uploads.UPLOAD_TTL // 60} minutes" in page
