"""Captions by Ray, on a cluster of two nodes of which one dies: the same as on one machine, nothing lost or twice."""

import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked
from tests.bulk.archive import write_tar
from tests.bulk.test_run import rows_of

COUNT = 3000


@pytest.fixture
def fresh() -> Iterator[dict[str, str]]:
    """The environment of a new user's machine on which Ray never ran; Ray's sockets need a short path."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    for name in ("home", "t"):
        Path(folder, name).mkdir()
    yield {
        "HOME": f"{folder}/home",
        "TMPDIR": f"{folder}/t",
        "RAY_TMPDIR": f"{folder}/t",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_BACKEND_LOG_LEVEL": "fatal",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",
    }
    shutil.rmtree(folder)


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


def test_a_worker_that_dies_before_it_answers_is_counted(
    checkpoint: Path, fresh: dict[str, str], tmp_path: Path
) -> None:
    out, tar = tmp_path / "captions.parquet", write_tar(tmp_path / "s.tar", 700)
    done = forked.run("tests.bulk.ray_faults", checkpoint, tar, out, "dies once", environment=fresh)
    assert done.stdout == "BulkResult(captioned=700, failed=0, before=0) died\n", done.stderr
    assert len({row["path"] for row in rows_of(out)}) == len(rows_of(out)) == 700


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("cannot load", r"There is no model on this machine\."), ("dies always", r"2 workers died over one shard.*")],
)
def test_what_a_worker_cannot_do_is_one_sentence(
    checkpoint: Path, fresh: dict[str, str], tmp_path: Path, fault: str, sentence: str
) -> None:
    out, tar = tmp_path / "captions.parquet", write_tar(tmp_path / "s.tar", 3)
    done = forked.run("tests.bulk.ray_faults", checkpoint, tar, out, fault, environment=fresh)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert re.fullmatch(rf"The worker on \S+ failed: {sentence}\n", done.stdout), done.stderr
