"""Whoever reads the images, threads or processes, and whatever happens to them: each image gets the same caption."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from hf_captioner import Caption, ImageCaptioner, ImageError, captioner, reading
from hf_captioner.bulk.shards import NamedImage
from hf_captioner.config import CaptionerConfig
from hf_captioner.images import ImageSource, open_image
from hf_captioner.reading import ProcessReaders, ReadBatch, ThreadReaders, read_ahead
from tests.conftest import generated

CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """JPEGs, larger than the model reads them."""
    paths = [tmp_path / f"{index}.jpg" for index in range(6)]
    for index, path in enumerate(paths):
        generated(index, (500 + index, 400)).save(path)
    return paths


def started(config: CaptionerConfig, processes: int) -> ProcessReaders:
    """With processes that are all ready, so that they read from the first image on."""
    readers = ProcessReaders(config, CPU, processes)
    readers.submitted = reading.FEW_IMAGES + 1
    readers.submit([])
    until(lambda: len(readers.idle) == processes)
    return readers


def until(condition: Any) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def batches(images: Sequence[ImageSource], readers: reading.Readers, batch_size: int = 4) -> list[ReadBatch]:
    return list(read_ahead((NamedImage("", image) for image in images), batch_size, readers))


def forbidden(image: ImageSource, config: CaptionerConfig) -> np.ndarray:
    raise AssertionError(f"{image!r} was read by a thread")


class Deadly(str):
    """A path over which a process dies as soon as it gets it."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


def test_processes_read_to_the_bit_what_threads_read(
    photos: list[Path], tiny_config: CaptionerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain(ImageFile.ImageFile):
        def _open(self) -> None:
            self._mode, self._size = "L", (20, 20)
            self.tile = [ImageFile._Tile("raw", (0, 0, 20, 20), 5, "L")]

    Image.init()  # or it would be done to the list that is put back
    monkeypatch.setattr(Image, "ID", [*Image.ID, "PLAIN"])
    monkeypatch.setitem(Image.OPEN, "PLAIN", (Plain, lambda prefix: prefix.startswith(b"PLAIN")))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300_000)
    whole = photos[0].read_bytes()
    (tmp_path / "broken.jpg").write_bytes(whole[:999])
    generated(7, (600, 600)).save(tmp_path / "large.jpg")
    images: list[Any] = [
        *photos,
        str(photos[1]),
        whole,
        memoryview(whole),
        tmp_path / "broken.jpg",
        tmp_path / "none.jpg",
        tmp_path / "large.jpg",
        "https://example.org/dog.jpg",
        ImageError("there is no such member"),
        io.BytesIO(whole),
        open_image(whole),
        np.array(open_image(whole)),
        b"PLAIN" + bytes(range(200)) * 2,
        7,
    ]
    expected = batches(images, ThreadReaders(tiny_config))
    found = batches(images, started(tiny_config, 2))
    assert [[str(e) for e in batch.errors] for batch in found] == [[str(e) for e in batch.errors] for batch in expected]
    assert sum(error is not None for batch in found for error in batch.errors) == 6
    for batch, other in zip(found, expected, strict=True):
        assert batch.pixels is not None and other.pixels is not None
        assert torch.equal(batch.pixels, other.pixels) and batch.pixels.stride() == other.pixels.stride()


def test_a_process_that_dies_costs_the_image_that_it_died_over_and_no_other(
    photos: list[Path], tiny_captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [caption.to_dict(attention=True) for caption in tiny_captioner.caption(photos)]
    made: list[ProcessReaders] = []

    def readers_for(config: CaptionerConfig, device: torch.device) -> ProcessReaders:
        made.append(started(config, 1))
        return made[0]

    monkeypatch.setattr(captioner, "readers_for", readers_for)
    monkeypatch.setattr(reading, "_levels", forbidden)
    results = tiny_captioner.stream([*photos[:2], Deadly(photos[2]), *photos[2:] * 3], batch_size=6)
    first = next(results)
    until(lambda: made[0].idle)
    os.kill(made[0].processes[0].popen.pid, signal.SIGKILL)
    kinds = [first, *results]
    died = kinds.pop(2)
    assert isinstance(died, ImageError) and str(photos[2]) in str(died) and "perhaps for lack of memory" in str(died)
    captions = [result.to_dict(attention=True) for result in kinds if isinstance(result, Caption)]
    texts = [caption["caption"] for caption in captions]
    assert texts == [caption["caption"] for caption in expected[:2] + expected[2:] * 3]
    assert not running(made[0].processes[0].popen.pid)


def test_a_stream_left_early_reads_no_further_and_leaves_no_process(
    photos: list[Path], tiny_config: CaptionerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_levels", forbidden)
    read = 0

    def endless() -> Iterator[NamedImage]:
        nonlocal read
        while True:
            read += 1
            yield NamedImage("", photos[read % 6])

    readers = started(tiny_config, 2)
    stream = read_ahead(endless(), 5, readers)
    for _ in range(3):
        assert len(next(stream).images) == 5
    stream.close()
    assert read == 5 * (3 + 2)
    assert not any(running(process.popen.pid) for process in readers.processes)


def test_processes_are_started_for_many_images_and_until_they_are_ready_threads_read(
    photos: list[Path], tiny_captioner: ImageCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [caption.to_dict(attention=True) for caption in tiny_captioner.caption(photos)]
    made: list[ProcessReaders] = []

    def readers_for(config: CaptionerConfig, device: torch.device) -> ProcessReaders:
        made.append(ProcessReaders(config, device, 2))
        return made[-1]

    monkeypatch.setattr(captioner, "readers_for", readers_for)
    assert tiny_captioner.caption(photos[0]).to_dict(attention=True)["caption"] == expected[0]["caption"]
    few = tiny_captioner.caption(photos * 5, batch_size=6)
    assert [caption.to_dict(attention=True) for caption in few] == expected * 5
    assert [readers.processes for readers in made] == [[], []]
    many = tiny_captioner.caption(photos * 6, batch_size=6)
    assert [caption.to_dict(attention=True) for caption in many] == expected * 6
    assert len(made[-1].processes) == 2 and not any(running(process.popen.pid) for process in made[-1].processes)


SCRIPT = """
import sys, time
import torch
from hf_captioner import ImageCaptioner, captioner, reading
from hf_captioner.reading import ProcessReaders

print("begun", flush=True)
made = []
def readers_for(config, device):
    made.append(ProcessReaders(config, device, 1))
    return made[0]
captioner.readers_for, reading.FEW_IMAGES = readers_for, 0
def images():
    yield sys.argv[2]
    while not made[0].idle:
        time.sleep(0.02)
    reading._levels = None  # now only the process can
    yield sys.argv[2]
model = ImageCaptioner.from_pretrained(sys.argv[1], device="cpu")
print(*model.stream(images(), batch_size=1), sep="\\n")
"""


def test_a_script_without_a_guard_runs_once(checkpoint: Path, photos: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, checkpoint, photos[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    begun, first, second = done.stdout.splitlines()
    assert begun == "begun" and first == second != ""
    assert done.stderr == ""


def test_beside_a_processor_two_threads_read_and_beside_anything_else_processes(tiny_config: CaptionerConfig) -> None:
    with reading.readers_for(tiny_config, CPU) as readers:
        assert isinstance(readers, ThreadReaders) and readers.threads._max_workers == 2
    with reading.readers_for(tiny_config, torch.device("cuda")) as readers:
        assert isinstance(readers, ProcessReaders)
        assert 1 <= readers.count <= min(16, max(1, (os.cpu_count() or 1) - 1))
