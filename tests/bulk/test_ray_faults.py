"""What goes wrong in a worker of Ray is counted, or one sentence; a file of its own, for each test starts Ray."""

import re
from pathlib import Path

import pytest

from tests import forked
from tests.bulk.archive import write_tar
from tests.bulk.test_run import rows_of
from tests.conftest import generated


def test_a_worker_that_dies_before_it_answers_is_counted(
    checkpoint: Path, fresh: dict[str, str], tmp_path: Path
) -> None:
    out, tar = tmp_path / "captions.parquet", write_tar(tmp_path / "s.tar", 700)
    done = forked.run("tests.bulk.ray_faults", checkpoint, tar, out, "dies once", environment=fresh)
    assert done.stdout == "BulkResult(captioned=700, failed=0, before=0, failed_before=0) died\n", done.stderr
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


def test_what_failed_is_tried_again_and_nothing_found_is_said(
    checkpoint: Path, fresh: dict[str, str], tmp_path: Path
) -> None:
    out, tar, bad = tmp_path / "t.parquet", write_tar(tmp_path / "s.tar", 3), tmp_path / "bad.jpg"
    bad.write_text("no image")
    command = ("hf_captioner.cli", "caption", tar, bad, "--model", checkpoint, "--engine", "ray", "--out", out)
    done = forked.run(*command, environment=fresh)
    assert done.returncode == 1 and "1 of 4 images failed" in done.stderr
    generated(1).save(bad)
    done = forked.run(*command, "--retry-failed", environment=fresh)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert len({row["path"] for row in rows}) == len(rows) == 4 and not any(row["error"] for row in rows)
    empty = write_tar(tmp_path / "empty.tar.gz", 0, mode="w:gz")
    command = ("hf_captioner.cli", "caption", empty, "--model", checkpoint, "--engine", "ray")
    done = forked.run(*command, "--out", tmp_path / "empty.parquet", environment=fresh)
    assert done.returncode == 2 and f"There is no image in {empty}" in done.stderr
