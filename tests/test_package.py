"""The house keeps its order, exports what it says, and works from a wheel in a fresh environment."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

import hf_captioner
from tests.demo.serving import serving

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [
    "errors",
    "atomic",
    "config",
    "flags",
    "images",
    "modeling",
    "hub",
    "heatmap",
    "caption",
    "bulk",
    "captioner",
    "training",
    "demo",
    "caption_command",
    "cli",
    "__main__",
    "__init__",
]  # each imports only from itself and from those before it


def room_of(module: str) -> int:
    """Which of ROOMS a module of the package is in."""
    fits = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    assert fits, f"hf_captioner.{module} is in no room"
    return ROOMS.index(max(fits, key=len))


def imports(file: Path) -> set[str]:
    """Every module that a file imports, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in below if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()}
            found |= modules or {node.module}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "hf_captioner").rglob("*.py")), ids=lambda path: path.stem)
def test_data_flows_one_way(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT / "hf_captioner").with_suffix("").parts).removesuffix(".__init__")
    found = imports(path)
    assert not {module for module in found if module.split(".")[0] in ("train", "space", "tests")}
    for module in found:
        if module.startswith("hf_captioner."):
            assert room_of(module.removeprefix("hf_captioner.")) <= room_of(own), module
        assert module != "hf_captioner" or own.partition(".")[0] in ("demo", "cli"), "the front door is for users"


def test_all_names_what_is_there() -> None:
    modules = {path.stem for path in (ROOT / "hf_captioner").iterdir()}
    public = {name for name in vars(hf_captioner) if not name.startswith("_")} - modules
    assert public | {"__version__"} == set(hf_captioner.__all__)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([uv(), "build", "--quiet", "--out-dir", str(folder), str(ROOT)], check=True)
    return folder


def uv() -> str:
    return str(Path(sys.executable).parent / "uv")


def test_wheel_and_sdist_carry_everything(built: Path) -> None:
    wheel = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md", "LICENSE"):
        assert f"hf_captioner/checkpoint/{name}" in wheel
        assert f"hf_captioner/checkpoint/{name}" in sdist
    assert {
        "hf_captioner/demo/page.css",
        "hf_captioner/_data/space/app.py",
        "hf_captioner/_data/model_card.md",
        "hf_captioner/py.typed",
    } <= wheel
    assert {"space/app.py", "train/ablation.py", "tests/conftest.py", "model_card.md", "Makefile"} <= sdist
    assert not [name for name in wheel if name.startswith(("train/", "tests/"))]


def test_make_demo_opens_the_page_with_no_more_than_it_needs(built: Path, image_path: Path, tmp_path: Path) -> None:
    """In an unpacked sdist, where nothing was set up before."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (clone,) = tmp_path.glob("hf_captioner-*")
    with serving(["make", "demo", f"PYTHON={sys.executable}"], tmp_path, cwd=clone) as server:
        answer = Client(server.url, verbose=False).predict(handle_file(image_path), api_name="/caption")
    assert len(answer["caption"].split()) >= 3
    installed = {path.name for path in (clone / ".venv").glob("lib/python3*/site-packages/*")}
    assert "gradio" in installed and not installed & {"evaluate", "pyarrow", "ray", "pytest"}


LOWEST = """
import sys
from hf_captioner import ImageCaptioner, caption_many, iter_images
captioner = ImageCaptioner.from_pretrained()
captioner.save_pretrained("saved")
again = ImageCaptioner.from_pretrained("saved")
assert again.caption(sys.argv[1]).text == captioner.caption(sys.argv[1]).text
assert caption_many(again, iter_images(sys.argv[1]), "captions.parquet").captioned == 1
from hf_captioner.demo import app
app.build_page(captioner)
"""


def test_the_installed_wheel_works_with_the_oldest_dependencies_allowed(
    built: Path, image_path: Path, tmp_path: Path
) -> None:
    """All other tests run with the newest ones."""
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [uv(), "pip", "install", "--quiet", "--resolution", "lowest-direct", "--python", str(python)]
    subprocess.run([*install, f"hf-captioner[bulk,demo] @ {next(built.glob('*.whl')).as_uri()}"], check=True)
    command = [str(python.parent / "hf-captioner"), "caption", str(image_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    path, _, caption = done.stdout.strip().partition("\t")
    assert path == str(image_path)
    assert len(caption.split()) >= 3
    script = [str(python), "-c", LOWEST, str(image_path)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr


def test_every_dependency_has_a_lower_and_an_upper_end() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in (project["dependencies"], *project["optional-dependencies"].values()):
        for dependency in needed:
            assert re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+,<[\d.]+", dependency), dependency
