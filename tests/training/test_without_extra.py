"""Where the extra `train` is missing, every command of this room says in one sentence what to install."""

import json
import os
import subprocess
import sys
from pathlib import Path

COMMANDS = ("calibrate", "tune_generation", "occlusion", "report")
ABSENT = (
    "accelerate",
    "datasets",
    "evaluate",
    "matplotlib",
    "pycocoevalcap",
    "skimage",
    "tensorboard",
    "pyarrow",
)
"""What the extra `train` brings, but for what other packages need."""
WITHOUT = """
import json, runpy, sys
absent, commands, flags = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(absent))
for command in commands:
    sys.argv = [command, *flags, *(["--out", "report.html"] if command == "report" else [])]
    try:
        runpy.run_module(f"hf_captioner.training.{command}", run_name="__main__")
    except SystemExit as end:
        print(command, end.code)
"""


def test_a_command_without_its_extra_is_one_sentence(checkpoint: Path, tmp_path: Path) -> None:
    given = json.dumps([ABSENT, COMMANDS, ["--data", str(tmp_path), "--model", str(checkpoint)]])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, given],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.split("\n")[:-1] == [f"{command} 2" for command in COMMANDS], done.stderr
    for command, line in zip(COMMANDS, done.stderr.strip().split("\n"), strict=True):
        assert line.startswith(f"python -m hf_captioner.training.{command} needs packages that are not installed; run:")
        assert "hf-captioner[train]" in line
