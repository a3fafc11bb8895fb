"""The house keeps its order, exports what it says, and works from a wheel in a fresh environment."""

import ast
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import hf_captioner

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [
    "errors",
    "atomic",
    "config",
    "arrays",
    "rgb",
    "images",
    "modeling",
    "onnx",
    "hub",
    "heatmap",
    "caption",
    "model",
    "bulk",
    "reading",
    "captioner",
    "training",
    "demo",
    "caption_command",
    "push_command",
    "generation_flags",
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
        assert module != "hf_captioner" or own.partition(".")[0] in ("demo", "cli", "__main__"), (
            "the front door is for users"
        )


def test_all_names_what_is_there() -> None:
    modules = {path.stem for path in (ROOT / "hf_captioner").iterdir()}
    public = {name for name in vars(hf_captioner) if not name.startswith("_")} - modules
    assert public | {"__version__"} == set(hf_captioner.__all__)


def test_wheel_and_sdist_carry_everything(wheel: Path, sdist: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "hf_captioner").rglob("*.*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert "hf_captioner/checkpoint/model.safetensors" in package and package <= installed & sources
    assert {"hf_captioner/_data/space/app.py", "hf_captioner/_data/model_card.md"} <= installed
    assert {"space/app.py", "train/ablation.py", "tests/conftest.py", "model_card.md", "Makefile"} <= sources
    assert {path.name for path in ROOT.glob("*.md")} <= sources
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} <= sources
    assert not [name for name in installed if name.startswith(("train/", "tests/"))]


def test_the_version_is_one_everywhere(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert f"\nVersion: {hf_captioner.__version__}\n" in archive.read(metadata).decode()
    assert f"\n## [{hf_captioner.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f'\nversion: "{hf_captioner.__version__}"\n' in (ROOT / "CITATION.cff").read_text()


def test_every_dependency_has_a_lower_and_an_upper_end() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for needed in (project["dependencies"], *project["optional-dependencies"].values()):
        for dependency in needed:
            assert re.fullmatch(r"[\w-]+(\[\w+\])?>=[\d.]+,<[\d.]+", dependency), dependency
