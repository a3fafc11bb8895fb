"""What a user installs: the built wheel in fresh environments, away from the clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

UV = str(Path(sys.executable).parent / "uv")


def build(folder: Path, source: Path) -> None:
    """Put an sdist and the wheel that is built from it into the folder."""
    subprocess.run([UV, "build", "--quiet", "--out-dir", str(folder), str(source)], check=True)


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to which the clone, which PYTHONPATH may name, is unknown."""
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        given.pop(name, None)
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, env=given)


class Environment:
    """A virtual environment: an empty one, or a copy of another."""

    def __init__(self, folder: Path, copied_from: "Environment | None" = None) -> None:
        self.folder, self.python = folder, str(folder / "bin" / "python")
        if copied_from is None:
            subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
        else:  # links, so that it takes a second and the modules are compiled already
            shutil.copytree(copied_from.folder, folder, symlinks=True, copy_function=os.link)

    @property
    def packages(self) -> set[str]:
        """The top-level modules that are installed, and their metadata."""
        return {path.name for path in self.folder.glob("lib/python3*/site-packages/*")}

    def install(self, *requirements: str) -> None:
        subprocess.run([UV, "pip", "install", "--quiet", "--python", self.python, *requirements], check=True)

    def run(self, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """`hf-captioner ARGUMENTS`, with its temporary files in `cwd`/tmp."""
        # A copy's scripts name the Python of the original, so not by the script.
        return self.run_python("-m", "hf_captioner", *arguments, cwd=cwd, **environment)

    def run_python(self, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        (cwd / "tmp").mkdir(exist_ok=True)
        command = [self.python, *map(str, arguments)]
        return run(*command, cwd=cwd, TMPDIR=str(cwd / "tmp"), **environment)
