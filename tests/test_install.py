"""What a user installs works: the base alone, each extra alone, the oldest dependencies allowed, and `make demo`."""

import shlex
import shutil
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from tests import installing
from tests.bulk.test_run import rows_of
from tests.conftest import generated, write_table
from tests.demo.serving import serving
from tests.installing import Environment

ROOT = Path(__file__).resolve().parent.parent
HOMEPAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
EXTRAS = {
    "demo": {"gradio", "onnx", "onnxruntime", "onnxscript"},
    "onnx": {"onnx", "onnxruntime", "onnxscript"},
    "web": {"onnx", "onnxruntime", "onnxscript"},
    "train": {"accelerate", "datasets", "evaluate", "pyarrow", "skimage"},
    "timm": {"timm"},
    "bulk": {"datasets", "pyarrow"},
    "ray": {"pyarrow", "ray"},
    "completion": {"shtab"},
}
"""Extra -> what it brings of the packages that no base installation may have."""
OPTIONAL = set().union(*EXTRAS.values())
RECIPE = """
model: {encoder: resnet18, encoder_layer: layer2, image_size: 64, hidden_size: 16, backward_hidden_size: 8}
generation: {num_beams: 2, max_length: 8}
min_count: 1
batch_size: 4
stages: [{epochs: 1, learning_rate: 0.02, warmup: 1, captions: 1}]
"""
TRAIN = ("train", "captions.csv", "--out", "out", "--recipe", "recipe.yaml", "--backbone", "random")
TO_PARQUET = ("caption", "0.png", "--out", "table.parquet")
IMPORT_ROOM = """
import importlib, pkgutil, sys
room = importlib.import_module(f"hf_captioner.{sys.argv[1]}")
for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
    importlib.import_module(module.name)
"""
BUILD_PAGE = """
from hf_captioner import ImageCaptioner
from hf_captioner.demo import app
app.build_page(ImageCaptioner.from_pretrained())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run: twelve captioned images and a recipe."""
    work = tmp_path / "work"
    work.mkdir()
    write_table(work, ["train"] * 8 + ["validation"] * 4, kinds=4)
    (work / "recipe.yaml").write_text(RECIPE)
    return work


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """Ray's sockets need a short name."""
    short = tempfile.mkdtemp(prefix="r", dir="/tmp")
    yield short
    shutil.rmtree(short)


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel without any extra; do not install into it."""
    environment = Environment(tmp_path_factory.mktemp("base") / "environment")
    environment.install(str(wheel))
    return environment


def test_the_base_captions_and_brings_no_more_than_that_needs(base: Environment, folder: Path) -> None:
    assert not base.packages & OPTIONAL
    (folder / "images.parquet").write_bytes(b"PAR1")
    script = str(base.folder / "bin" / "hf-captioner")
    done = installing.run(script, "caption", "0.png", "images.parquet", cwd=folder)
    assert done.returncode == 1
    assert f"pip install 'hf-captioner[bulk] @ git+{HOMEPAGE}'" in done.stderr
    path, _, caption = done.stdout.strip().partition("\t")
    assert path == "0.png" and len(caption.split()) >= 3
    done = base.run("caption", "0.png", "--out", "table.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [row["caption"] for row in rows_of(folder / "table.jsonl")] == [caption]


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("demo", ("demo",)),
        ("train", TRAIN),
        ("onnx", ("export", "out")),
        ("web", ("export", "--web", "page")),
        ("bulk", TO_PARQUET),
        ("ray", (*TO_PARQUET, "--engine", "ray")),
        ("completion", ("--print-completion", "bash")),
    ],
)
def test_a_missing_extra_is_named_and_the_line_that_installs_it_makes_the_command_work(
    base: Environment,
    wheel: Path,
    folder: Path,
    tmp_path: Path,
    ray_folder: str,
    extra: str,
    command: tuple[str, ...],
) -> None:
    environment = Environment(tmp_path / "environment", copied_from=base)
    (folder / "tmp").mkdir()
    before = sorted(folder.rglob("*"))
    refused = environment.run(*command, cwd=folder)
    assert refused.returncode == 2
    assert refused.stdout == "" and len(refused.stderr.splitlines()) == 1, refused.stderr
    assert sorted(folder.rglob("*")) == before

    pip, install, *wanted = shlex.split(refused.stderr.partition("run: ")[2])
    assert (pip, install, wanted) == ("pip", "install", [f"hf-captioner[{extra}] @ git+{HOMEPAGE}"])
    environment.install(f"hf-captioner[{extra}] @ {wheel.as_uri()}")  # the same, without a network
    assert environment.packages & OPTIONAL == EXTRAS[extra]

    if extra == "demo":
        done = environment.run_python("-c", BUILD_PAGE, cwd=folder)
    else:
        done = environment.run(*command, cwd=folder, RAY_TMPDIR=ray_folder)
    assert done.returncode == 0, done.stderr
    if extra == "train":
        assert (folder / "out" / "best" / "model.safetensors").exists()
        done = environment.run_python("-c", IMPORT_ROOM, "training", cwd=folder)
        assert done.returncode == 0, done.stderr
    elif extra in ("bulk", "ray"):
        assert [row["path"] for row in rows_of(folder / "table.parquet")] == ["0.png"]


def test_the_oldest_dependencies_allowed_work(wheel: Path, folder: Path, tmp_path: Path) -> None:
    """All other tests run with the newest ones."""
    environment = Environment(tmp_path / "environment")
    extras = [part for extra in ("demo", "bulk", "train", "onnx") for part in ("--extra", extra)]
    environment.install("--resolution", "lowest-direct", "--requirements", str(ROOT / "pyproject.toml"), *extras)
    environment.install("--no-deps", str(wheel))
    assert "torch-2.10.0.dist-info" in environment.packages
    for command in (TO_PARQUET, TRAIN, ("caption", "0.png", "--dtype", "int8")):
        done = environment.run(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    done = environment.run_python("-c", BUILD_PAGE, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_make_demo_opens_the_page_with_no_more_than_it_needs(sdist: Path, tmp_path: Path) -> None:
    """In an unpacked sdist, where nothing was set up before."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (clone,) = tmp_path.glob("hf_captioner-*")
    generated(0).save(tmp_path / "image.png")
    make = ["env", "-u", "PYTHONPATH", "make", "demo", f"PYTHON={sys.executable}"]
    with serving(make, tmp_path, cwd=clone) as server:
        answer = Client(server.url, verbose=False).predict(handle_file(tmp_path / "image.png"), api_name="/caption")
    assert len(answer["caption"].split()) >= 3
    installed = {path.name for path in clone.glob(".venv/lib/python3*/site-packages/*")}
    assert installed & OPTIONAL == EXTRAS["demo"] and "pytest" not in installed
