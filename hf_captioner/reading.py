"""Images read ahead of the model: by two threads beside a processor, by processes beside a GPU, which is quicker."""

import os
import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hf_captioner.bulk.shards import NamedImage, next_batch
from hf_captioner.config import CaptionerConfig
from hf_captioner.errors import ImageError
from hf_captioner.images import ImageSource, normalised, read_pixels, read_resized, source_name

READER_THREADS = 2
"""Threads that read and resize images while the model works."""

MAX_PROCESSES = 16

IMAGES_AT_ONCE = 4
"""Images that a process is asked for at once."""

FEW_IMAGES = 32
"""So many are read sooner than a process has started."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class ReadBatch:
    images: Sequence[NamedImage]
    errors: Sequence[ImageError | None]
    """Of each image; None where it could be read."""
    pixels: Tensor | None
    """(A, 3, S, S) of the images that could be read, channels last as `preprocess` gives them; None where A is 0."""


class Readers(ABC):
    """Threads that read images, `ahead` batches while one is captioned."""

    ahead: int

    def __init__(self, config: CaptionerConfig, threads: int) -> None:
        self.config = config
        self.threads = ThreadPoolExecutor(threads, "read")

    @abstractmethod
    def submit(self, batch: Sequence[NamedImage]) -> Sequence[Future[Any]]:
        """Begin to read."""

    @abstractmethod
    def batch(self, images: Sequence[NamedImage], reading: Sequence[Future[Any]]) -> ReadBatch:
        """What `submit` began, once it is done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.threads.shutdown(cancel_futures=True)


def readers_for(config: CaptionerConfig, device: torch.device) -> Readers:
    return ThreadReaders(config) if device.type == "cpu" else ProcessReaders(config, device)


def read_ahead(images: Iterator[NamedImage], batch_size: int, readers: Readers) -> Generator[ReadBatch, None, None]:
    """The images in batches, in their order. Closed, or at its end, it ends the readers."""
    with readers:
        reading: deque[tuple[Sequence[NamedImage], Sequence[Future[Any]]]] = deque()
        while batch := next_batch(images, batch_size):
            reading.append((batch, readers.submit(batch)))
            if len(reading) > readers.ahead:
                yield readers.batch(*reading.popleft())
        while reading:
            yield readers.batch(*reading.popleft())


def _read(
    read: Callable[[ImageSource, CaptionerConfig], Read], image: ImageSource | ImageError, config: CaptionerConfig
) -> Read | ImageError:
    if isinstance(image, ImageError):
        return image
    try:
        return read(image, config)
    except ImageError as error:
        return _without_traceback(error)


def _without_traceback(error: ImageError) -> ImageError:
    """The error and its causes without their tracebacks, whose frames hold the image's bytes."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


def _errors(results: Sequence[object]) -> list[ImageError | None]:
    return [result if isinstance(result, ImageError) else None for result in results]


# -- threads -----------------------------------------------------------------------------------------------------------


class ThreadReaders(Readers):
    ahead = 1

    def __init__(self, config: CaptionerConfig) -> None:
        super().__init__(config, READER_THREADS)

    def submit(self, batch: Sequence[NamedImage]) -> Sequence[Future[Tensor | ImageError]]:
        reading = [self.threads.submit(_read, read_pixels, named.image, self.config) for named in batch]
        wait(reading)  # the encoder wants every core: side by side both lose
        return reading

    def batch(self, images: Sequence[NamedImage], reading: Sequence[Future[Tensor | ImageError]]) -> ReadBatch:
        results = [future.result() for future in reading]
        pixels = [result.movedim(0, -1) for result in results if isinstance(result, Tensor)]
        return ReadBatch(images, _errors(results), torch.stack(pixels).movedim(-1, 1) if pixels else None)


# -- processes ---------------------------------------------------------------------------------------------------------


class ProcessReaders(Readers):
    """Threads, each of which has a process read for it once one has started.

    What travels back is (S, S, 3) uint8, a quarter of the pixels' bytes, which the device normalises.
    """

    ahead = 2

    def __init__(self, config: CaptionerConfig, device: torch.device, processes: int | None = None) -> None:
        self.count = processes or min(max(_cores() - 1, 1), MAX_PROCESSES)
        super().__init__(config, self.count)
        self.device = device
        self.starting = ThreadPoolExecutor(self.count, "start")
        self.processes: list[_Process] = []
        self.idle: deque[_Process] = deque()
        self.submitted = 0

    def submit(self, batch: Sequence[NamedImage]) -> Sequence[Future[list[np.ndarray | ImageError]]]:
        self.submitted += len(batch)
        if self.submitted > FEW_IMAGES and not self.processes:
            for _ in range(self.count):
                self.processes.append(_Process())
                self.starting.submit(self._start, self.processes[-1])
        parts = [batch[start : start + IMAGES_AT_ONCE] for start in range(0, len(batch), IMAGES_AT_ONCE)]
        return [self.threads.submit(self._read, part) for part in parts]

    def batch(
        self, images: Sequence[NamedImage], reading: Sequence[Future[list[np.ndarray | ImageError]]]
    ) -> ReadBatch:
        results = [result for future in reading for result in future.result()]
        levels = [result for result in results if isinstance(result, np.ndarray)]
        if not levels:
            return ReadBatch(images, _errors(results), None)
        is_cuda = self.device.type == "cuda"
        stacked = torch.empty((len(levels), *levels[0].shape), dtype=torch.uint8, pin_memory=is_cuda)
        np.stack(levels, out=stacked.numpy())
        pixels = normalised(stacked.to(self.device, non_blocking=is_cuda), self.config)
        return ReadBatch(images, _errors(results), pixels)

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        for process in self.processes:
            process.kill()
        self.starting.shutdown()
        for process in self.processes:
            process.close()

    def _start(self, process: "_Process") -> None:
        if process.is_ready():  # else its last words are on stderr, and the threads read without it
            self.idle.append(process)

    def _read(self, part: Sequence[NamedImage]) -> list[np.ndarray | ImageError]:
        sent = [_encoded(named.image) for named in part]
        found = iter(self._read_by_process([image for image in sent if image is not None]))
        results: list[np.ndarray | ImageError] = []
        for named, encoded in zip(part, sent, strict=True):
            result = None if encoded is None else next(found)
            # What a process cannot read may be of a format, or within a limit, that was set for Pillow in this one.
            results.append(_read(_levels, named.image, self.config) if result is None else result)
        return results

    def _read_by_process(self, images: "list[Encoded]") -> "Sequence[np.ndarray | ImageError | None]":
        try:
            process = self.idle.pop()
        except IndexError:  # none has started yet
            return [None] * len(images)
        try:
            return process.read(images, self.config)
        finally:
            self.idle.append(process)


Encoded = str | Path | bytes


def _encoded(image: ImageSource | ImageError) -> Encoded | None:
    """What a process is sent of an image; None for a file object, which cannot travel, and for what is decoded
    already, which would take longer on its way than here."""
    match image:
        case str():
            return image
        case os.PathLike():
            return Path(image)
        case bytes() | bytearray() | memoryview():
            return bytes(image)
        case _:
            return None


def _levels(image: ImageSource, config: CaptionerConfig) -> np.ndarray:
    return np.asarray(read_resized(image, config))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


READY = b"."

PROGRAM = """
import pickle, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
sys.path[:] = pickle.load(sys.stdin.buffer)
from hf_captioner.reading import serve
serve()
"""


class _Process:
    """A process that reads images, asked and answering in pickles until its input ends.

    It is a plain interpreter. Those of `multiprocessing`, spawned or of a fork server, would run the caller's script
    again where that has no `if __name__ == "__main__":`; a fork would copy locks that other threads hold, and CUDA
    fails in it; and of a pool that breaks nobody knows over which image it did.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.questions, self.answers = cast(IO[bytes], self.popen.stdin), cast(IO[bytes], self.popen.stdout)
        with suppress(BrokenPipeError):  # where it has ended already it is never ready
            self._send(sys.path)

    def is_ready(self) -> bool:
        """Wait until it can be asked; False where it ended before."""
        return self.answers.read(1) == READY

    def read(self, images: Sequence[Encoded], config: CaptionerConfig) -> Sequence[np.ndarray | ImageError | None]:
        """(S, S, 3) uint8 of each; None for one that it could not read, ImageError for one that it died over."""
        try:
            return self._ask(images, config)
        except DIED:
            self._restart()
        results: list[np.ndarray | ImageError | None] = []
        for image in images:  # which of them was it?
            try:
                results += self._ask([image], config)
            except DIED:
                self._restart()
                results.append(
                    ImageError(
                        f"{source_name(image)}: the process that read the image was ended, perhaps for lack of memory; "
                        "make the image smaller, or leave it out."
                    )
                )
        return results

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def close(self) -> None:
        with suppress(BrokenPipeError):  # a question that it never read
            self.questions.close()
        self.answers.close()

    def _ask(self, images: Sequence[Encoded], config: CaptionerConfig) -> list[np.ndarray | None]:
        self._send((images, config, Image.MAX_IMAGE_PIXELS))
        answer: list[np.ndarray | None] = pickle.load(self.answers)
        return answer

    def _send(self, question: object) -> None:
        pickle.dump(question, self.questions, pickle.HIGHEST_PROTOCOL)
        self.questions.flush()

    def _restart(self) -> None:
        self.kill()
        self.close()
        self._start()
        self.is_ready()


DIED = (BrokenPipeError, EOFError, pickle.UnpicklingError)
"""What asking a process that has ended, or ends over its answer, raises."""


def serve() -> None:
    """Answer on stdout what is asked on stdin, until that ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where else anything is printed
    answers.write(READY)
    answers.flush()
    with suppress(EOFError, BrokenPipeError):
        while True:
            images, config, Image.MAX_IMAGE_PIXELS = pickle.load(sys.stdin.buffer)
            pickle.dump([_levels_or_none(image, config) for image in images], answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _levels_or_none(image: Encoded, config: CaptionerConfig) -> np.ndarray | None:
    try:
        return _levels(image, config)
    except Exception:  # whoever asked reads it again and sees for itself
        return None
