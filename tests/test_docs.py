"""What README.md and docs/ show works as it stands there."""

import argparse
import ast
import importlib
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_captioner.hub.packaged import bundled_checkpoint
from tests.conftest import generated
from tests.demo.serving import demo
from tests.documents import PAGES, ROOT, text_of
from tests.hub.standin_hub import StandInHub

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
PAGE_URL = "http://127.0.0.1:7860"
"""Where the page answers in the examples."""

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")


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

OTHERS = {"python3", "accelerate", "cd", "find", "git", "jupyter", "pip", "ray"}
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
