"""Captions by Ray: shards of images go to workers, each with a captioner of its own, on one machine or many.

A worker writes its captions as Parquet files named after the shard, each whole or not at all. A shard that is done
again, because its machine died before its answer arrived, finds them and writes only what is missing.
"""

import contextlib
import hashlib
import json
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Unpack

from tqdm import tqdm

from hf_captioner.bulk.parts import ROWS_PER_PART, count_rows, names_in_parts, part_path, write_part
from hf_captioner.bulk.results import SeenKeys, to_row
from hf_captioner.bulk.run import BulkResult, Captioner, run_fingerprint, stream_named
from hf_captioner.bulk.shards import Discovered, FileShard, Shard, UnreadableSource
from hf_captioner.bulk.tables import DatasetShard, ParquetShard
from hf_captioner.bulk.tar import TarShard
from hf_captioner.bulk.writers import open_writer
from hf_captioner.config import GenerationOptions
from hf_captioner.errors import CaptionerError, ConfigError, require_extra

SHARDS_PER_WAVE = 4096
"""Shards given to Ray at a time, so that the memory needed does not grow with the archive."""
MAX_ATTEMPTS = 10
"""Workers that may die over a shard. Ray itself would try for ever, and one image may exhaust the memory each time."""
QUIET_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}
SHARD_KINDS: dict[str, Callable[..., Shard]] = {
    kind.__name__: kind for kind in (UnreadableSource, FileShard, TarShard, ParquetShard, DatasetShard)
}


def caption_on_ray(
    load: Callable[[], Captioner],
    shards: Iterable[Shard],
    out: Path,
    *,
    discovered: Discovered | None = None,
    batch_size: int = 32,
    retry_failed: bool = False,
    **generation: Unpack[GenerationOptions],
) -> BulkResult:
    """Caption the shards into the folder `out` of Parquet files, on the cluster that RAY_ADDRESS names, or here.

    load: gives the captioner; it is pickled, and called here and by every worker. discovered: counts the images while
    the shards are read, for the bar's total. retry_failed: as for `caption_many`. Every machine must reach the images,
    the model and `out` under the same names. A worker has a GPU where the cluster has any, else one core. A machine may
    die: others do its shards.
    Raises what `caption_many` does, and OSError with the sentence of a worker that failed.
    """
    if out.suffix != ".parquet":
        raise ConfigError(f"--out is {out}; with Ray expected a name that ends in .parquet.")
    require_extra("--engine ray", "ray", "ray", "pyarrow")
    captioner = load()
    fingerprint = run_fingerprint(captioner, captioner.prepare_generation_config(generation))
    worker = (load, str(out.resolve()), batch_size, generation)
    with _quiet(), _started() as ray, open_writer(out, fingerprint, retry_failed=retry_failed) as table:
        captioned_before, failed_before = count_rows(out)
        before = captioned_before + failed_before
        texts = map(_shard_to_json, shards)
        with tqdm(initial=before, unit=" images", dynamic_ncols=True) as bar:
            while wave := list(islice(texts, SHARDS_PER_WAVE)):
                bar.total = discovered.total if discovered else None
                for written in _run(ray, wave, worker):
                    bar.update(written)
            # Not the sum of the answers: that of a worker whose machine died may have been lost.
            captioned, failed = count_rows(out)
            bar.update(captioned + failed - bar.n)
        put_back = table.finish()
    return BulkResult(captioned - captioned_before, failed - failed_before, before + put_back, failed_before + put_back)


class Worker:
    """Captions shard after shard, with a captioner that is loaded once.

    An error is an answer: Ray would put its sentence somewhere into the text of an exception of its own.
    """

    def __init__(self, load: Callable[[], Captioner], out: str, batch_size: int, generation: GenerationOptions) -> None:
        self.load, self.out, self.batch_size, self.generation = load, Path(out), batch_size, generation
        self.captioner: Captioner | None = None
        self.done = SeenKeys()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        answers = [self._answer(str(text)) for text in batch["shard"]]
        return {"written": [written for written, _ in answers], "error": [error for _, error in answers]}

    def _answer(self, text: str) -> tuple[int, str]:
        """Rows written, and what went wrong, or nothing."""
        try:
            if self.captioner is None:
                self.done = names_in_parts(self.out)
                self.captioner = self.load()
            return self._caption(self.captioner, text), ""
        except Exception as error:
            kind = "" if isinstance(error, CaptionerError | OSError) else f"{type(error).__name__}: "
            return 0, f"The worker on {socket.gethostname()} failed: {kind}{error}"

    def _caption(self, captioner: Captioner, text: str) -> int:
        name, shard, written = hashlib.sha256(text.encode()).hexdigest()[:32], _shard_from_json(text), 0
        if shard.count is not None and all(
            part_path(self.out, f"{name}-{number}").exists() for number in range(-(-shard.count // ROWS_PER_PART))
        ):
            return 0
        with _counted_attempt(self.out / f".{name}.attempts.tmp", text):
            for number, numbered in groupby(enumerate(shard), lambda pair: pair[0] // ROWS_PER_PART):
                part = f"{name}-{number}"
                new = (image for _, image in numbered if not self.done.take(image.name))
                if part_path(self.out, part).exists():
                    continue
                results = stream_named(captioner, new, batch_size=self.batch_size, **self.generation)
                rows = [to_row(image.name, result) for image, result in results]
                if rows:
                    write_part(self.out, part, rows)
                written += len(rows)
        return written


@contextlib.contextmanager
def _counted_attempt(path: Path, shard: str) -> Iterator[None]:
    """A byte for each attempt in a file that outlives the worker. Raises OSError after MAX_ATTEMPTS."""
    with path.open("ab") as file:
        file.write(b".")
        attempts = file.tell()
    if attempts > MAX_ATTEMPTS:
        raise OSError(f"{MAX_ATTEMPTS} workers died over one shard, perhaps for lack of memory: {shard[:200]}")
    yield
    path.unlink(missing_ok=True)


def _shard_to_json(shard: Shard) -> str:
    return json.dumps({"kind": type(shard).__name__, **asdict(shard)})  # type: ignore[call-overload]


def _shard_from_json(text: str) -> Shard:
    values = json.loads(text)
    return SHARD_KINDS[values.pop("kind")](**values)


@contextlib.contextmanager
def _started() -> Iterator[Any]:
    for name, value in QUIET_RAY.items():  # read when it is imported
        os.environ.setdefault(name, value)
    import ray.data

    dashboard = None if "RAY_ADDRESS" in os.environ else False
    ray.init(include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _run(ray: Any, wave: list[str], worker: tuple[Any, ...]) -> Iterator[int]:
    """Rows written of each shard, as the answers come. Raises OSError where a worker failed."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    resources = ray.cluster_resources()
    per_worker = {"num_gpus": 1} if resources.get("GPU") else {"num_cpus": 1}
    workers = int(resources.get("GPU") or resources["CPU"])
    shards = ray.data.from_items([{"shard": text} for text in wave], override_num_blocks=len(wave))
    answers = shards.map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
        fn_constructor_args=worker,
        **per_worker,
    )
    try:
        for answer in answers.iter_rows():
            if answer["error"]:
                raise OSError(str(answer["error"]))
            yield int(answer["written"])
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(f"Ray gave up ({reason}); the same command continues from what is written.") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray off stdout, where it reports that a machine died, and hide warnings of its own settings."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
