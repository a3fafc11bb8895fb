"""What failed before counts until it is read again; its new row takes the old one's place, whatever stops the run."""

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_captioner import ImageCaptioner, ImageError, caption_many
from hf_captioner.bulk.results import to_row
from hf_captioner.bulk.writers import FORMATS, open_writer
from hf_captioner.cli import main
from tests import forked
from tests.bulk.archive import write_tar
from tests.bulk.test_run import rows_of
from tests.bulk.test_writers import FINGERPRINT, caption
from tests.conftest import generated


@pytest.mark.parametrize("suffix", FORMATS)
def test_mended_files_are_read_again_and_others_keep_their_rows(
    saved_captioner: ImageCaptioner, tmp_path: Path, suffix: str
) -> None:
    folder, out = tmp_path / "in", tmp_path / f"t{suffix}"
    folder.mkdir()
    generated(1).save(folder / "a.png")
    whole = write_tar(tmp_path / "whole.tar", 4).read_bytes()
    (folder / "b.tar").write_bytes(whole[: 512 * 8 + 700])
    for name in ("=c.jpg", "d\n.jpg"):
        (folder / name).write_text("no image")
    (tmp_path / "elsewhere.jpg").write_text("no image")
    caption_many(saved_captioner, tmp_path / "elsewhere.jpg", out)
    first = caption_many(saved_captioner, folder, out)
    assert (first.failed, first.failed_before) == (3, 1)
    again = caption_many(saved_captioner, folder, out)
    assert (again.captioned, again.failed, again.failed_before) == (0, 0, 4)

    (folder / "b.tar").write_bytes(whole)
    generated(2).save(folder / "=c.jpg")
    mended = caption_many(saved_captioner, folder, out, retry_failed=True)
    assert (mended.failed, mended.failed_before) == (1, 1)
    rows = rows_of(out)
    assert sorted(Path(str(row["path"])).name.lstrip("'") for row in rows) == [
        *(f"{index:06d}.jpg" for index in range(4)),
        "=c.jpg",
        "a.png",
        "d\\u000a.jpg",
        "elsewhere.jpg",
    ]
    assert sum(row["error"] is not None for row in rows) == 2
    assert not (tmp_path / f"t{suffix}.retry").exists()


NAMES = [f"{index}.jpg" for index in range(6)]


class Killed(BaseException):
    pass


def retry(path: Path) -> None:
    with open_writer(path, FINGERPRINT, retry_failed=True) as writer:
        for name in NAMES[:5]:  # the last is not among the images this time
            if not writer.done.take(name):
                writer.write([to_row(name, caption(f"again {name}"))])
        writer.finish()


def kill_in_time(real: Any, countdown: Iterator[bool]) -> Any:
    def call(*arguments: Any, **more: Any) -> Any:
        if next(countdown, False):
            raise Killed
        return real(*arguments, **more)

    return call


@pytest.mark.parametrize("suffix", FORMATS)
def test_killed_at_any_step_no_image_is_lost_or_there_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Step by step of those that change the disk; the last round is not killed."""
    for step in itertools.count(1):
        path = tmp_path / str(step) / f"t{suffix}"
        with open_writer(path, FINGERPRINT) as writer:
            for name in NAMES:
                failed = int(name[0]) % 2
                writer.write([to_row(name, ImageError(f"{name}: no image.") if failed else caption(name))])
                writer.flush()
        killed = False
        with monkeypatch.context() as patch:
            countdown = iter([*[False] * (step - 1), True])
            for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "rename")):
                patch.setattr(owner, name, kill_in_time(getattr(owner, name), countdown))
            try:
                retry(path)
            except Killed:
                killed = True
        there = Counter(row["path"] for row in rows_of(path))
        assert max(there.values()) == 1 and there.keys() >= set(NAMES[::2])
        retry(path)
        rows = rows_of(path)
        assert sorted(str(row["path"]) for row in rows) == NAMES
        assert [row["path"] for row in rows if row["error"]] == [NAMES[5]]
        if not killed:
            break
    assert step > 6


def test_the_real_command_killed_again_and_again(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "t.parquet"
    folder.mkdir()
    paths = [folder / f"{index:04d}.jpg" for index in range(300)]
    for path in paths:
        path.write_text("no image")
    arguments = ("caption", folder, "--model", checkpoint, "--out", out, "--num-beams", 1, "--batch-size", 8)
    assert forked.run("hf_captioner.cli", *arguments).returncode == 1
    for path in paths[1:]:
        generated(1).save(path)
    done = forked.killed("hf_captioner.cli", *arguments, "--retry-failed", times=5, longest=0.7)
    assert done.returncode == 1 and "1 of 300 images failed" in done.stderr
    rows = rows_of(out)
    assert sorted(str(row["path"]) for row in rows) == list(map(str, paths))
    assert [row["path"] for row in rows if row["error"]] == [str(paths[0])]


def test_a_failed_image_that_is_there_no_more_is_not_promised_another_try(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    generated(1).save(folder / "a.png")
    (folder / "b.png").write_text("no image")
    command = ["caption", str(folder), "--model", str(checkpoint), "--out", str(tmp_path / "t.csv"), "--num-beams", "1"]
    assert main(command) == 1
    (folder / "b.png").unlink()
    assert main(command) == 1
    assert "--retry-failed reads these again" in capsys.readouterr().err
    assert main([*command, "--retry-failed"]) == 1
    said = capsys.readouterr().err
    assert "1 of 2 images failed, 1 of them in an earlier run and not among the images given now" in said
    assert "--retry-failed" not in said
