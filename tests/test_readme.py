"""What the README shows works as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

from hf_captioner import CaptionerConfig
from hf_captioner.cli import build_parser
from tests.conftest import generated
from train.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    generated(1).save("dog.jpg")
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] and len(lines) == len(lines[0].split()) + 3  # the caption, its words, two results
    assert lines[-1].startswith("missing.jpg: ")
    assert Path("second-word.png").exists() and Path("where-it-looked.png").exists()


def test_the_commands_are_understood() -> None:
    commands = re.findall(r"^.*?hf-captioner ([a-z-]+ ?[^\n>|]*)", "\n".join(blocks("sh")), re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_the_classic_captioners_are_a_line_each(tmp_path: Path) -> None:
    rows = re.findall(r"^\| .*`(\{encoder.*\})` \|$", README, re.MULTILINE)
    assert len(rows) == 4
    for row in rows:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"model: {row}\nstages: [{{epochs: 1, learning_rate: 0.001}}]\n")
        assert Recipe.read(recipe).captioner_config(1000).encoder in row


def test_the_scores_are_the_bundled_checkpoints() -> None:
    config = CaptionerConfig.from_json((ROOT / "hf_captioner" / "checkpoint" / "config.json").read_text())
    assert config.results is not None
    row = " | ".join(f"{100 * score:.1f}" for score in config.results.scores.values())
    assert row in README


def test_every_file_that_is_named_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 5
    for link in links:
        assert (ROOT / link).exists(), link
