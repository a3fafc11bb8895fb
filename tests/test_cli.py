"""The real command: results on stdout, messages on stderr, and an exit code that says how it went."""

import argparse
import csv
import functools
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import hf_captioner
from hf_captioner.bulk.printable import from_csv_cell, original
from hf_captioner.bulk.results import CSV_COLUMNS
from hf_captioner.cli import build_parser
from tests import forked
from tests.conftest import write_table

run = functools.partial(forked.run, "hf_captioner.cli")

RECIPE = """
model: {encoder: resnet18, encoder_layer: layer2, image_size: 64, hidden_size: 16, backward_hidden_size: 8}
generation: {num_beams: 2, max_length: 8}
min_count: 1
batch_size: 4
stages: [{epochs: 1, learning_rate: 0.02, warmup: 1, captions: 1}]
"""


@pytest.fixture
def bad_path(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jpg"
    path.write_text("no image")
    return path


def test_a_line_an_image(checkpoint: Path, image_paths: list[Path]) -> None:
    done = run("caption", *image_paths, "--model", checkpoint)
    assert done.returncode == 0
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [path for path, _ in lines] == [str(path) for path in image_paths]
    assert all(caption for _, caption in lines)
    assert "5/5" in done.stderr


def test_a_bad_image_is_named_and_the_others_go_on(checkpoint: Path, image_paths: list[Path], bad_path: Path) -> None:
    done = run("caption", image_paths[0], bad_path, image_paths[1], "--json", "--model", checkpoint)
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["path"] for row in rows] == [str(image_paths[0]), str(bad_path), str(image_paths[1])]
    assert f"{bad_path}: " in rows[1]["error"] and "caption" not in rows[1]
    assert rows[0]["caption"] == " ".join(word["text"] for word in rows[0]["words"])
    assert f"{bad_path}: " in done.stderr
    assert "1 of 3 images failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_means_its_images_and_a_dash_means_stdin(
    checkpoint: Path, image_paths: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not an image, and not tried")
    folder = run("caption", tmp_path, "--csv", "--model", checkpoint)
    listed = run("caption", "-", "--csv", "--model", checkpoint, stdin="\n".join(map(str, image_paths)))
    assert folder.returncode == listed.returncode == 0
    assert folder.stdout == listed.stdout
    rows = list(csv.DictReader(io.StringIO(folder.stdout)))
    assert [row["path"] for row in rows] == [str(path) for path in image_paths]
    assert tuple(rows[0]) == CSV_COLUMNS


def test_search_flags_are_the_searchs_fields(checkpoint: Path, image_path: Path) -> None:
    steer = (
        "--prefix",
        "two dog",
        "--max-length",
        "4",
        "--num-return-sequences",
        "3",
        "--bad-words",
        "beach",
        "--bad-words",
        "grass",
    )
    done = run("caption", image_path, "--model", checkpoint, *steer)
    captions = [line.partition("\t")[2] for line in done.stdout.splitlines()]
    assert len(set(captions)) == 3
    for caption in captions:
        assert caption.startswith("two dog")
        assert len(caption.split()) <= 4
        assert not {"beach", "grass"} & set(caption.split())


def test_heatmaps_are_written(checkpoint: Path, image_paths: list[Path], tmp_path: Path) -> None:
    done = run("caption", *image_paths[:2], "--heatmaps", tmp_path / "maps", "--model", checkpoint)
    assert done.returncode == 0
    sheets = sorted((tmp_path / "maps").iterdir())
    assert [sheet.name for sheet in sheets] == ["000000-0.png", "000001-1.png"]
    with Image.open(sheets[0]) as sheet:
        assert sheet.width > 500


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["caption", "x.jpg", "--beem", "3"], 2, "unrecognized arguments: --beem"),
        (["caption", "x.jpg", "--num-beams", "0"], 2, "num_beams is 0; expected 1 to 100"),
        (["caption", "x.jpg", "--length-penalty", "-1.5"], 2, "length_penalty is -1.5; expected 0"),
        (["caption", "x.jpg", "--num-beams", "-0"], 2, "argument --num-beams: expected one argument"),
        (["caption", "x.jpg", "--num-beams=-0"], 2, "num_beams is 0; expected 1 to 100"),
        (["caption", "x.jpg", "--retry-failed"], 2, "give that table: --out TABLE"),
        (["caption", "x.jpg", "-0"], 2, "give - among the paths"),
        (["caption", "https://example.com/a.jpg"], 1, "a URL is not read; download it first"),
        (["caption", "-"], 2, "There is no image in what stdin names"),
        (["caption", "x.jpg", "--json", "--csv"], 2, "not allowed with argument"),
        (["caption", "x.jpg", "--device", "tpu"], 2, "device is 'tpu', which cannot be used here"),
        (["caption", "x.jpg", "--dtype", "int4"], 2, "invalid choice: 'int4'"),
        (["info", "--model", "./gone"], 1, "There is no folder ./gone"),
        (["train", ".", "--out", "x", "--recipe", "./gone"], 2, "gone"),
        (["train", ".", "--out", "x", "--init", "a", "--backbone", "b"], 2, "not allowed with argument"),
        ([], 2, "COMMAND"),
    ],
)
def test_wrong_usage_is_one_sentence(checkpoint: Path, arguments: list[str], code: int, complaint: str) -> None:
    model = ["--model", str(checkpoint)] if arguments[:1] == ["caption"] else []
    done = run(*arguments, *model)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_info_says_what_a_checkpoint_is(checkpoint: Path) -> None:
    done = run("info", "--model", checkpoint, "--device", "cpu", "--dtype", "bfloat16")
    assert done.returncode == 0
    assert "feature map: 8 x 8 x 128" in done.stdout and "computes on: cpu, in bfloat16" in done.stdout
    assert '"decoder": "bilstm"' in done.stdout


def test_a_dtype_is_what_captions_are_computed_in(checkpoint: Path, image_path: Path) -> None:
    plain, rounded = (
        json.loads(run("caption", image_path, "--json", "--model", checkpoint, "--dtype", dtype).stdout)
        for dtype in ("float32", "bfloat16")
    )
    assert plain["score"] != rounded["score"]
    assert plain["score"] == pytest.approx(rounded["score"], rel=0.2)


def test_python_dash_m_and_the_version(capfd: pytest.CaptureFixture[str]) -> None:
    subprocess.run([sys.executable, "-m", "hf_captioner", "--version"], check=True)
    assert capfd.readouterr().out == f"hf-captioner {hf_captioner.__version__}\n"


def test_every_flag_is_explained_with_its_default() -> None:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    assert set(commands.choices) == {"caption", "train", "evaluate", "demo", "push", "push-space", "export", "info"}
    for name, command in commands.choices.items():
        for action in command._actions:
            assert action.help, f"{name} {action.dest}"
            if action.option_strings and action.dest != "help" and not action.required:
                assert "(default: " in action.help, f"{name} {action.option_strings}"
        assert command.format_help()


def test_the_shell_completes_commands_and_flags(tmp_path: Path) -> None:
    pytest.importorskip("shtab", reason="needs shtab: pip install 'hf-captioner[completion]'")
    (tmp_path / "complete.sh").write_text(run("--print-completion", "bash").stdout)
    for typed, expected in ((["ca"], "caption"), (["caption", "--num-b"], "--num-beams")):
        words = " ".join(["hf-captioner", *typed])
        script = f"source complete.sh; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _shtab_hf_captioner"
        script += "; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert expected in done.stdout.split(), done.stderr
    assert "_files" in run("--print-completion", "zsh").stdout


def test_training_and_evaluating_are_commands(tmp_path: Path) -> None:
    data = write_table(tmp_path, ["train"] * 8 + ["validation"] * 4, kinds=4)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    recipe = ("--recipe", tmp_path / "recipe.yaml", "--backbone", "random", "--device", "cpu")
    trained = run("train", data, "--out", tmp_path / "out", *recipe)
    assert trained.returncode == 0, trained.stderr
    best = tmp_path / "out" / "best"
    assert trained.stdout.startswith(f"The captioner lies in {best}.\n")
    scored = run("evaluate", data, "--model", best, "--write-results", "--dataset", "Blocks")
    assert scored.returncode == 0, scored.stderr
    assert "CIDEr" in scored.stdout
    own, scores = json.loads((best / "evaluation.json").read_text())["scores"]
    assert own["command"] == "hf-captioner train DATA --out DIR --recipe FILE --backbone random --device cpu"
    assert (scores["dataset"], scores["images"]) == ("Blocks", 4)
    assert scores["command"].startswith("hf-captioner evaluate ")


def test_captioning_loads_neither_gradio_nor_the_metrics() -> None:
    code = "import sys; import hf_captioner.cli; print('gradio' in sys.modules, 'evaluate' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_folder_without_images_is_said(checkpoint: Path, tmp_path: Path) -> None:
    done = run("caption", tmp_path, "--model", checkpoint)
    assert done.returncode == 2
    assert f"There is no image in {tmp_path}" in done.stderr


def test_a_file_name_of_any_bytes_is_captioned(checkpoint: Path, image: Image.Image, tmp_path: Path) -> None:
    """And what is said of it is UTF-8, a line an image, paints no terminal, and tells it from a file named so."""
    names = ["caf\udce9.png", "caf\\udce9.png", "a\nb\t.png", "\x1b[31mred\x9b.png"]
    for name in names:
        image.save(tmp_path / name)
    (tmp_path / "\x1b[2J.jpg").write_text("no image")
    for form in (["--json"], ["--csv"], []):
        done = run("caption", tmp_path, *form, "--model", checkpoint)
        assert done.returncode == 1
        assert "\\u001b[2J.jpg: this is no image" in done.stderr and "\x1b[2J" not in done.stderr
        said = done.stdout
        assert said.encode(), "UTF-8"
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", said)
        if form != ["--csv"]:
            paths = [json.loads(line)["path"] if form else line.partition("\t")[0] for line in said.splitlines()]
        else:
            paths = [from_csv_cell(row["path"]) for row in csv.DictReader(io.StringIO(said))]
            assert len(said.splitlines()) == 6
        assert len(set(paths)) == len(paths) == (5 if form else 4)
        stored = {path if form == ["--csv"] else original(path) for path in paths}
        assert {str(tmp_path / name) for name in names} <= stored


def test_a_formula_is_text_for_a_spreadsheet(checkpoint: Path, image: Image.Image, tmp_path: Path) -> None:
    for name in ("=cmd|calc.png", "@sum.png", "plain.png"):
        image.save(tmp_path / name)
    named = [Path(name) for name in ("=cmd|calc.png", "@sum.png", "plain.png")]
    shown = run("caption", *named, "--csv", "--model", checkpoint, folder=tmp_path)
    run("caption", *named, "--out", "t.csv", "--model", checkpoint, folder=tmp_path)
    for text in (shown.stdout, (tmp_path / "t.csv").read_text()):
        assert [row["path"] for row in csv.DictReader(io.StringIO(text))] == [
            "'=cmd|calc.png",
            "'@sum.png",
            "plain.png",
        ]
    again = run("caption", *named, "--out", "t.csv", "--model", checkpoint, folder=tmp_path)
    assert again.returncode == 0 and len((tmp_path / "t.csv").read_text().splitlines()) == 4


def test_paths_on_stdin_may_end_with_a_nul(checkpoint: Path, image: Image.Image, tmp_path: Path) -> None:
    names = ["two\nlines.png", "caf\udce9.png", " .png"]
    for name in names:
        image.save(tmp_path / name)
    stdin = "\0".join(str(tmp_path / name) for name in names)
    done = run("caption", "-0", "-", "--json", "--model", checkpoint, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert [original(json.loads(line)["path"]) for line in done.stdout.splitlines()] == stdin.split("\0")
