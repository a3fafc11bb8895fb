"""What the README shows works as it stands there."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from hf_captioner import CaptionerConfig, ImageCaptioner
from hf_captioner.cli import build_parser
from hf_captioner.demo import app
from hf_captioner.demo import tab_batch as many
from hf_captioner.demo.session import CaptionRequest, most_attended, recaption, start_session
from hf_captioner.training.recipe import Recipe
from tests.conftest import generated

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
    assert lines[0] and len(lines) == len(lines[0].split()) + 2  # caption and confidence, words, two results
    assert lines[-1].startswith("missing.jpg: ")
    assert Path("second-word.png").exists() and Path("where-it-looked.png").exists()


def test_the_archive_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("holiday").mkdir()
    for name in ("dog.jpg", "holiday/a.jpg", "holiday/b.jpg"):
        generated(1).save(name)
    example = next(block for block in blocks("python") if "caption_many" in block)
    exec(compile(example, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["holiday/a.jpg", "holiday/b.jpg", "dog.jpg", "3 0 0"] and len(lines) == 6


def test_the_commands_are_understood() -> None:
    commands = re.findall(r"^.*?hf-captioner ([a-z-]+ ?[^\n>|]*)", "\n".join(blocks("sh")), re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        build_parser().parse_args(shlex.split(command))


def test_the_training_commands_take_these_flags(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"-m ((?:hf_captioner\.training|train)\.[a-z_]+)([^`\n]*)", README)
    assert {module for module, _ in commands} >= {
        "hf_captioner.training.trainer",
        "hf_captioner.training.evaluate",
        "train.ablation",
        "hf_captioner.training.report",
    }
    for module, arguments in commands:
        with pytest.raises(SystemExit, match="0"):
            importlib.import_module(module).main(["--help"])
        flags = re.findall(r"--[a-z-]+", arguments)
        assert flags and set(flags) <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out)), (module, arguments)


def test_the_classic_captioners_are_a_line_each(tmp_path: Path) -> None:
    rows = re.findall(r"^\| .*`(\{encoder.*\})` \|$", README, re.MULTILINE)
    assert len(rows) == 4
    for row in rows:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(f"model: {row}\nstages: [{{epochs: 1, learning_rate: 0.001}}]\n")
        assert Recipe.read(recipe).captioner_config(1000).encoder in row


def test_the_figures_are_the_bundled_checkpoints() -> None:
    config = CaptionerConfig.from_json((ROOT / "hf_captioner" / "checkpoint" / "config.json").read_text())
    results, occlusion, calibration = config.results, config.occlusion, config.calibration
    assert results is not None and occlusion is not None and calibration is not None
    assert " | ".join(f"{100 * score:.1f}" for score in results.scores.values()) in README
    for part, probability in occlusion.occluded.items():
        assert f"| {part} | {probability:.3f} | {100 * occlusion.changed[part]:.0f} % |" in README
    assert f"For {occlusion.words:,} content words" in README and f"it was {occlusion.baseline:.3f} on" in README
    assert f'"{occlusion.mean_image}": CIDEr {100 * occlusion.mean_image_cider:.1f}' in README
    assert f"calibration error is {calibration.error:.3f}" in README
    assert f"is {calibration.auroc_correct:.2f} for" in README and f"and {calibration.auroc_ood:.2f} for" in README
    assert f"{config.image_size} x {config.image_size} pixels" in README


def test_the_camera_that_is_covered_is_not_spoken_of() -> None:
    captioner = ImageCaptioner.from_pretrained()
    session = start_session(captioner, ROOT / "space" / "examples" / "camera.jpg")
    words = [word.text for word in session.plain.words]
    covered = most_attended(session.plain.words[words.index("camera")].attention)
    answer = recaption(captioner, session, CaptionRequest(), covered).answers[0]
    assert "camera" not in answer.text.split()


def test_the_pages_limits_are_as_stated() -> None:
    assert f"drop up to {many.MOST} photographs" in README
    assert app.UPLOAD_TTL == 600 and "after ten minutes" in README


def test_every_file_that_is_named_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert len(links) >= 5
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
