"""Captions by Ray: shards of images go to workers, each with a captioner of its own, on one machine or many.

A worker writes a shard's captions as one Parquet file, named after the shard, whole or not at all. So a shard that is
done again, because its machine died before it could say that it was done, replaces its own file and no other.
"""

import contextlib
import hashlib
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from hf_captioner.bulk.run import BulkResult, captioned, run_fingerprint
from hf_captioner.bulk.shards import Discovered, FileShard, Shard, UnreadableSource
from hf_captioner.bulk.tables import DatasetShard, ParquetShard
from hf_captioner.bulk.tar import TarShard
from hf_captioner.bulk.writers import ParquetWriter, open_writer, part_of, to_row, write_part
from hf_captioner.captioner import ImageCaptioner
from hf_captioner.errors import ConfigError, ImageError

WAVE = 4096
"""Shards that Ray is given at once, so that the memory needed does not grow with the archive."""
TRIES = 100
"""How often a shard is tried again whose worker dies; waiting for a worker that starts anew counts too."""
KINDS: dict[str, Callable[..., Shard]] = {
    kind.__name__: kind for kind in (UnreadableSource, FileShard, TarShard, ParquetShard, DatasetShard)
}


class Worker:
    """On any machine: a captioner that is loaded once, and captions shard after shard."""

    def __init__(self, model: str | None, bfloat16: bool, out: str, batch_size: int, search: dict[str, Any]) -> None:
        self.captioner = ImageCaptioner.from_pretrained(model)
        self.captioner.dtype = torch.bfloat16 if bfloat16 else torch.float32
        if torch.cuda.is_available():
            self.captioner.to("cuda")
        self.out, self.batch_size, self.search = Path(out), batch_size, search
        self.done = ParquetWriter.names_in(self.out)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        tallies = [self._caption(str(text)) for text in batch["shard"]]
        return {"captioned": [good for good, _ in tallies], "failed": [bad for _, bad in tallies]}

    def _caption(self, text: str) -> tuple[int, int]:
        name = hashlib.sha256(text.encode()).hexdigest()[:32]
        if part_of(self.out, name).exists():
            return 0, 0
        values = json.loads(text)
        shard = KINDS[values.pop("kind")](**values)
        new = (image for image in shard if not self.done.take(image.name))
        found = list(captioned(self.captioner, new, batch_size=self.batch_size, **self.search))
        if found:
            write_part(self.out, name, [to_row(image.name, outcome) for image, outcome in found])
        failed = sum(isinstance(outcome, ImageError) for _, outcome in found)
        return len(found) - failed, failed


def caption_on_ray(
    given: Iterable[Shard],
    out: Path,
    *,
    model: str | None = None,
    bfloat16: bool = False,
    batch_size: int = 32,
    discovered: Discovered | None = None,
    **search: Any,
) -> BulkResult:
    """Caption the shards into the folder `out` of Parquet files, on the Ray that RAY_ADDRESS names, or here.

    Every machine must reach the images, the model and `out` under the same names. A worker has a GPU where the
    cluster has any, else one core. A machine that dies loses nothing: its shards are done by the others. Raises as
    `caption_many` does.
    """
    if out.suffix != ".parquet":
        raise ConfigError(f"--out is {out}; with Ray expected a name that ends in .parquet.")
    captioner = ImageCaptioner.from_pretrained(model)
    captioner.dtype = torch.bfloat16 if bfloat16 else torch.float32
    settings = captioner.prepare_generation_config(search)
    with _quiet(), _started() as ray, open_writer(out, run_fingerprint(captioner, settings)) as table:
        before, counts = len(table.done), [0, 0]
        with tqdm(initial=before, unit="image", dynamic_ncols=True) as bar:
            texts, worker = map(_text, given), (model, bfloat16, str(out.resolve()), batch_size, search)
            while wave := list(islice(texts, WAVE)):
                bar.total = discovered.total if discovered else None
                for row in _run(ray, wave, worker):
                    counts[0] += int(row["captioned"])
                    counts[1] += int(row["failed"])
                    bar.update(int(row["captioned"]) + int(row["failed"]))
    return BulkResult(counts[0], counts[1], before)


def _text(shard: Shard) -> str:
    return json.dumps({"kind": type(shard).__name__, **asdict(shard)})  # type: ignore[call-overload]


@contextlib.contextmanager
def _started() -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported, as is the next
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray.data
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray; pip install 'hf-captioner[ray]'.") from error
    dashboard = None if "RAY_ADDRESS" in os.environ else False
    ray.init(include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _run(ray: Any, wave: list[str], worker: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """What each shard's worker answers, as it comes."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    has = ray.cluster_resources()
    one = {"num_gpus": 1} if has.get("GPU") else {"num_cpus": 1}
    workers = int(has.get("GPU") or has["CPU"])
    shards = ray.data.from_items([{"shard": text} for text in wave], override_num_blocks=len(wave))
    answers = shards.map_batches(
        Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers, max_tasks_in_flight_per_actor=2),
        fn_constructor_args=worker,
        max_task_retries=TRIES,
        **one,
    )
    try:
        yield from answers.iter_rows()
    except ray.exceptions.RayTaskError as error:
        raise OSError(f"A worker failed: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """The sentence of what a worker raised, which Ray puts somewhere into a long text."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line.startswith(("OSError: ", "hf_captioner.")) or "Error: " in line]
    return said[-1] if said else lines[-1]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints on stdout that a machine died, and warns of its own settings."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
