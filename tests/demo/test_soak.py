"""A small crowd for a short while; `python -m tests.demo.soak` is the large one for long."""

from pathlib import Path

from tests.demo.soak import soak
from tests.demo.soak_requests import bad_images

PAGE = {"the page, a photo", "the page, a row", "the page, again", "the page, again with markup", "the page, empty"}


def test_a_crowd_is_answered_and_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    report = soak(checkpoint, tmp_path, visitors=30, seconds=12, kept=8)
    assert not report.faults, str(report)
    assert report.most_files > 30, "else nothing is tested"
    assert {"an image", "a batch, one bad", "continued with markup", *bad_images(), *PAGE} <= report.seconds.keys()
