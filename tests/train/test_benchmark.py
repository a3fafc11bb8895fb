"""The benchmark prints every table that docs/speed.md has, for every way to compute."""

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from hf_captioner.modeling.device import has_bfloat16
from train.benchmark import PASSIVE, name_of, ways


def test_it_measures_every_way_to_compute(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.benchmark", "--model", str(checkpoint), "--rounds", "1", "--archive", "100"]
    environment = {name: value for name, value in os.environ.items() if name != PASSIVE}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "HF_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    heads = re.findall(r"\n\n\| (.+?) \|", done.stdout)
    tars = [f"a tar file, {name_of(way)}" for way in ways(torch.device("cpu"))]
    assert heads == ["one image", "32 images", "a new process", "32 images in a new process", *tars, "archive"]
    expected = {name_of(way) for way in ways(torch.device("cpu"))}
    assert len(expected) == 3 + has_bfloat16()
    for table in done.stdout.split("\n\n")[1:5]:
        assert all(way in table for way in expected)
        assert all(float(number) > 0 for number in re.findall(r"\| ([\d.]+) \|", table))


def test_what_is_missing_or_unknown_is_one_sentence(checkpoint: Path) -> None:
    command = [sys.executable, "-m", "train.benchmark", "--model", str(checkpoint), "--device", "abacus"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "device is 'abacus'" in done.stderr and "Traceback" not in done.stderr
