"""Two thousand broken images, and some made to do harm: each has a caption or an ImageError, soon and in little
memory. They are read in another process, for a crash, a hang or a leak would be this one's."""

import faulthandler
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hf_captioner import Caption, ImageCaptioner, ImageError
from hf_captioner.images import open_image, preprocess, read_pixels
from tests.broken_images import COUNT, PIXELS, SIZE, bombs, mutated, well_formed, write_what_is_no_file

SECONDS = 5
MEBIBYTES = 300
"""What reading may add to the process: 20 bytes for each of PIXELS, and what a header may take."""


# -- the other process -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CaptionResult:
    name: str
    error: str | None
    """None where it opened."""
    seconds: float
    mebibytes: float
    """What the process has grown to at most, less what it was at its start."""
    caption: bool = False


def look_at_all(folder: str, checkpoint: str) -> None:
    """Open and caption everything in the folder, and print the outcomes as JSON."""
    Image.MAX_IMAGE_PIXELS = PIXELS
    torch.set_num_threads(1)  # its threads cost more than they bring for images as small as these
    captioner = ImageCaptioner.from_pretrained(checkpoint)
    captioner.caption(Image.new("RGB", SIZE))
    start, outcomes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    paths = sorted(Path(folder).iterdir())
    for path in paths:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(path.name, file=sys.stderr)
        before, error = time.monotonic(), None
        try:
            read_pixels(path, captioner.config)
            if path.is_file():
                preprocess(open_image(path.read_bytes()), captioner.config)
        except ImageError as refused:
            error = str(refused)
        seconds = time.monotonic() - before
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
        outcomes.append(CaptionResult(path.name, error, seconds, grown))
    faulthandler.dump_traceback_later(SECONDS * 10, exit=True)
    results = list(captioner.stream(paths, num_beams=1, max_length=2))
    assert len(results) == len(paths) and all(isinstance(result, Caption | ImageError) for result in results)
    captions = [isinstance(result, Caption) for result in results]
    print(
        json.dumps([{**asdict(outcome), "caption": found} for outcome, found in zip(outcomes, captions, strict=True)])
    )


def looked_at(folder: Path, checkpoint: Path) -> list[CaptionResult]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", PROGRAM, folder, checkpoint],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Warning" not in run.stderr and "Traceback" not in run.stderr, run.stderr[-3000:]
    outcomes = [CaptionResult(**outcome) for outcome in json.loads(run.stdout)]
    assert [outcome.name for outcome in outcomes] == sorted(path.name for path in folder.iterdir())
    for outcome in outcomes:
        assert outcome.caption == (outcome.error is None), outcome
        assert outcome.seconds < SECONDS, outcome
        assert outcome.mebibytes < MEBIBYTES, outcome
    return outcomes


def memory_of_each(folder: str) -> None:
    """Open everything in the folder, each in a process of its own, and print the bytes a pixel that each needs."""
    Image.init()
    for path in sorted(Path(folder).iterdir()):
        if not (child := os.fork()):
            start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            opened = open_image(path)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024
            print(json.dumps([path.name, grown / (opened.width * opened.height)]), flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, path


PROGRAM = "import sys; from tests.test_bad_images import look_at_all; look_at_all(*sys.argv[1:])"


def test_two_thousand_broken_images(tmp_path: Path, checkpoint: Path) -> None:
    for name, content in mutated():
        (tmp_path / name).write_bytes(content)
    outcomes = looked_at(tmp_path, checkpoint)
    assert len(outcomes) == COUNT
    kinds = Counter(outcome.name.split("-")[1] for outcome in outcomes)
    assert kinds.keys() == {name.split("-")[0] for name in well_formed()} and len(kinds) > 20
    opened = Counter(outcome.name.split("-")[1] for outcome in outcomes if outcome.caption)
    assert opened.keys() >= {"BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF"} and opened.total() < COUNT
    for outcome in outcomes:
        assert outcome.error is None or outcome.name in outcome.error or outcome.error.startswith("the bytes"), outcome


def test_images_made_to_do_harm(tmp_path: Path, checkpoint: Path) -> None:
    for name, content in bombs():
        (tmp_path / name).write_bytes(content)
    write_what_is_no_file(tmp_path)
    outcomes = {outcome.name: outcome for outcome in looked_at(tmp_path, checkpoint)}
    said = {
        "pixels": "pixels are read",
        "tags": "header repeats itself",
        "format": "no image in a format",
        "empty": "file is empty",
        "folder.jpg": "a folder",
        "link": "symbolic links|No such file",
        "device.jpg": "no regular file",
        "pipe.jpg": "no regular file",
        "socket.jpg": "no regular file",
        "large.jpg": "400,000,001 bytes",
        "opened": None,
    }
    for outcome in outcomes.values():
        reason = said.get(outcome.name.split("-")[0], "")
        if reason is None:
            assert outcome.caption, outcome
        else:
            assert not reason or (outcome.error and any(part in outcome.error for part in reason.split("|"))), outcome
    forbidden = outcomes["forbidden.jpg"].error
    assert os.geteuid() == 0 or (forbidden is not None and "Permission denied" in forbidden)


def test_memory_for_each_pixel(tmp_path: Path) -> None:
    side = 3000
    ramp = np.add.outer(np.arange(side), np.arange(side))
    grey, exif = Image.fromarray((ramp % 256).astype(np.uint8)), Image.Exif()
    exif[0x0112] = 6
    for mode in ("RGBA", "LA", "P"):
        clear = {"transparency": 3} if mode == "P" else {}
        image = grey.convert(mode)
        if mode != "P":
            image.putalpha(grey)
        image.save(tmp_path / f"{mode}.png", compress_level=1, **clear)
    for mode in ("RGB", "CMYK", "L"):
        grey.convert(mode).save(tmp_path / f"{mode}.jpg", exif=exif)
    for mode, kind in (("I;16", np.uint16), ("I", np.int32), ("F", np.float32)):
        Image.fromarray((ramp * 100 % 70_000).astype(kind)).save(tmp_path / f"{mode}.tif")
    program = "import sys; from tests.test_bad_images import memory_of_each; memory_of_each(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr
    found = dict(json.loads(line) for line in run.stdout.splitlines())
    assert found.keys() == {path.name for path in tmp_path.iterdir()}
    assert max(found.values()) < 20, found
