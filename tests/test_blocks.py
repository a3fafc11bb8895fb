"""The blocks of the README and of the page on scale do not collide: they run one after the other in one folder."""

import contextlib
import glob
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_captioner import cli
from tests.bulk.archive import data_set
from tests.conftest import generated, write_table
from tests.documents import text_of
from tests.hub.standin_hub import StandInHub
from tests.test_docs import folder, online

__all__ = ["folder", "online"]  # fixtures

# The client's upload of large files uses what its own HTTP library calls out of date.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SERVER = "demo"
"""The command of ours that does not end; tests/demo runs it."""


def run_line(words: list[str]) -> int:
    """`hf-captioner ...` as a shell runs it: file names are expanded, `> FILE` takes what it prints."""
    target = io.StringIO()
    if ">" in words:
        *words, _, path = words
        target = Path(path).open("w")  # type: ignore[assignment]  # noqa: SIM115
    expanded = [name for word in words[1:] for name in (sorted(glob.glob(word)) if "*" in word else [word])]  # noqa: PTH207
    if words[1] == "train":  # accelerate takes the settings of one training for the whole process
        return subprocess.run([sys.executable, "-m", "hf_captioner", *expanded], check=False).returncode
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
