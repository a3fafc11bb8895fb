"""Captions by Ray, on a cluster of two nodes of which one dies: the same as on one machine, nothing lost or twice."""

import os
import subprocess
import sys
from pathlib import Path

from tests import forked
from tests.bulk.archive import write_tar
from tests.bulk.test_run import rows_of

COUNT = 3000


def test_a_node_dies_and_every_image_is_captioned_once(checkpoint: Path, fresh: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "captions.parquet"
    tars = [write_tar(tmp_path / f"{index}.tar", COUNT // 2) for index in range(2)]
    (tmp_path / "bad.jpg").write_text("no image")
    command = ("hf_captioner.cli", "caption", *tars, tmp_path / "bad.jpg", "--model", checkpoint, "--num-beams", 12)
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.bulk.two_nodes", str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | fresh,
    )
    assert nodes.stdin and nodes.stdout
    try:
        address = nodes.stdout.readline().strip()
        ray = ("--engine", "ray", "--out", out)
        done = forked.run(*command, *ray, environment={**fresh, "RAY_ADDRESS": address})
        assert done.returncode == 1, done.stderr
        assert done.stdout == "" and f"1 of {COUNT + 1} images failed" in done.stderr
    finally:
        try:
            said, _ = nodes.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            nodes.kill()
            said = "the second node never worked"
    assert said.strip() == "killed"
    rows = rows_of(out)
    assert len(rows) == len({row["path"] for row in rows}) == COUNT + 1
    here = forked.run(*command, "--out", tmp_path / "here.jsonl")
    assert here.returncode == 1, here.stderr
    assert sorted(rows, key=str) == sorted(rows_of(tmp_path / "here.jsonl"), key=str)
