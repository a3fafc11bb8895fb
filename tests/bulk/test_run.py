"""Many images by the real command: each is captioned once, whatever happens to the run."""

import csv
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from hf_captioner import ImageCaptioner
from hf_captioner.bulk.run import run_fingerprint
from hf_captioner.config import ConfidenceConfig
from hf_captioner.hub.evaluation import Evaluation
from hf_captioner.modeling.tokenizer import CaptionTokenizer
from tests import forked
from tests.bulk.archive import data_set, write_tar
from tests.conftest import generated

COUNT = 1500
QUICK = ("--num-beams", 1, "--max-length", 3)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 1,500 images in tar shards and a table, and three that are broken."""
    folder = tmp_path_factory.mktemp("archive")
    write_tar(folder / "a.tar", COUNT - 400)
    write_tar(folder / "b.tar.gz", 300, mode="w:gz")
    data_set(99, bad=7).to_parquet(folder / "c.parquet")
    generated(1).save(folder / "d.jpg")
    (folder / "e.jpg").write_text("no image")
    (folder / "f.tar").write_text("no tar file")
    return folder


def caption(archive: Path, checkpoint: Path, out: Path, *more: object, **options: int) -> forked.Done:
    return forked.run(
        "hf_captioner.cli", "caption", archive, "--model", checkpoint, "--out", out, *QUICK, *more, **options
    )


def rows_of(out: Path) -> list[dict[str, str | None]]:
    if out.suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    elif out.suffix == ".csv":
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [row for part in out.glob("*.parquet") for row in pyarrow.parquet.read_table(part).to_pylist()]
    return [{name: row.get(name) or None for name in ("path", "caption", "error")} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(
    archive: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str | None]]:
    out = tmp_path_factory.mktemp("out") / "captions.jsonl"
    done = caption(archive, checkpoint, out)
    assert done.returncode == 1, done.stderr
    assert f"3 of {COUNT + 2} images failed" in done.stderr and "[00:" in done.stderr
    rows = rows_of(out)
    assert len({row["path"] for row in rows}) == len(rows) == COUNT + 2
    assert sum(row["error"] is not None for row in rows) == 3
    return rows


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_killed_again_and_again_each_image_is_there_once(
    archive: Path, checkpoint: Path, uninterrupted: list[dict[str, str | None]], tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"captions.{suffix}"
    arguments = ("caption", archive, "--model", checkpoint, "--out", out, *QUICK, "--batch-size", 8)
    done = forked.killed("hf_captioner.cli", *arguments, times=8, longest=0.8)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    rows = rows_of(out)
    assert sorted(rows, key=str) == sorted(uninterrupted, key=str)
    again = forked.run("hf_captioner.cli", *arguments)
    assert again.returncode == 1 and rows_of(out) == rows, "what failed before still counts"
    assert "3 of them in an earlier run" in again.stderr


def test_a_full_disk_loses_nothing(
    archive: Path, checkpoint: Path, uninterrupted: list[dict[str, str | None]], tmp_path: Path
) -> None:
    for name, largest in (("captions.jsonl", 100_000), ("captions.parquet", 3_000)):
        out = tmp_path / name
        done = caption(archive, checkpoint, out, largest=largest)
        assert done.returncode == 1
        assert f"{out} cannot be written (File too large)" in done.stderr and "make room" in done.stderr
        assert "Traceback" not in done.stderr
        before = rows_of(out)
        assert all(row in uninterrupted for row in before) and not list(tmp_path.glob("*/.*"))
        caption(archive, checkpoint, out)
        assert sorted(rows_of(out), key=str) == sorted(uninterrupted, key=str)


def test_a_table_is_not_continued_with_other_settings(archive: Path, checkpoint: Path, tmp_path: Path) -> None:
    caption(archive / "d.jpg", checkpoint, tmp_path / "t.csv")
    before = (tmp_path / "t.csv").read_bytes()
    done = caption(archive / "d.jpg", checkpoint, tmp_path / "t.csv", "--min-length", 2)
    assert done.returncode == 2 and "was begun with another generation_config.min_length" in done.stderr
    assert (tmp_path / "t.csv").read_bytes() == before


def test_a_run_is_known_by_what_changes_its_captions(checkpoint: Path) -> None:
    def fingerprint(change: Callable[[ImageCaptioner], object], **search: Any) -> dict[str, Any]:
        captioner = ImageCaptioner.from_pretrained(checkpoint)
        with torch.no_grad():
            change(captioner)
        return run_fingerprint(captioner, captioner.prepare_generation_config(search))

    def measured(captioner: ImageCaptioner) -> None:
        captioner.evaluation = Evaluation(limits=("it cannot count",))
        captioner.config = dataclasses.replace(captioner.config, dropout=0.2)

    def calibrated(captioner: ImageCaptioner) -> None:
        confidence = ConfidenceConfig(0.1, 0.2, 0.3, 0.4)
        captioner.config = dataclasses.replace(captioner.config, confidence=confidence)

    base = fingerprint(lambda captioner: None)
    for same in (
        fingerprint(measured),
        fingerprint(lambda captioner: next(captioner.decoder.parameters()).mul_(1 + 1e-6)),  # float16 does not see it
        fingerprint(lambda captioner: None, seed=3, temperature=2.0, top_k=5, top_p=0.5),
    ):
        assert same == base
    others = {
        "weights": fingerprint(lambda captioner: next(captioner.encoder.parameters()).add_(0.1)),
        "config": fingerprint(calibrated),
        "dtype": fingerprint(lambda captioner: setattr(captioner, "dtype", torch.bfloat16)),
        "generation_config": fingerprint(lambda captioner: None, num_alternatives=1),
        "tokenizer": fingerprint(
            lambda captioner: setattr(captioner, "tokenizer", CaptionTokenizer.build(["other words"], min_count=1))
        ),
    }
    for name, other in others.items():
        assert [key for key in base if other[key] != base[key]] == [name]
    sampled = [fingerprint(lambda captioner: None, do_sample=True, seed=seed, num_beams=seed) for seed in (1, 1, 2)]
    assert base != sampled[0] == sampled[1] != sampled[2]
    assert sampled[0] == fingerprint(lambda captioner: None, do_sample=True, seed=1, num_beams=7)


def test_a_run_over_a_folder_that_has_grown_captions_what_is_new(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "t.jsonl"
    folder.mkdir()
    for name in ("b", "d"):
        generated(1).save(folder / f"{name}.png")
    caption(folder, checkpoint, out)
    for name in ("a", "c"):
        generated(2).save(folder / f"{name}.png")
    assert caption(folder, checkpoint, out).returncode == 0
    assert [Path(str(row["path"])).stem for row in rows_of(out)] == ["b", "d", "a", "c"]


def test_the_memory_does_not_grow_with_the_archive(checkpoint: Path, tmp_path: Path) -> None:
    peaks = []
    for count in (100, 3000):
        tar = write_tar(tmp_path / f"{count}.tar", count)
        done = caption(tar, checkpoint, tmp_path / f"{count}.jsonl")
        assert done.returncode == 0, done.stderr
        assert f"{count}/{count} [" in done.stderr, "the bar knows the total"
        peaks.append(done.memory)
    assert peaks[1] < peaks[0] + 8_000, f"{peaks} KiB"
