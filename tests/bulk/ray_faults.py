"""`python -m tests.bulk.ray_faults CHECKPOINT TAR OUT FAULT`: captions on Ray with a worker that is at fault.

`dies once`: when it has written a shard and before it could say so. `dies always`: then and whenever it is tried again.
`cannot load`: it cannot load the model.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from hf_captioner import ImageCaptioner
from hf_captioner.bulk import ray
from hf_captioner.bulk.readers import shards
from hf_captioner.bulk.shards import Discovered
from hf_captioner.errors import CheckpointError


def load(checkpoint: str, driver: int, fault: str, died: Path) -> ImageCaptioner:
    if os.getpid() != driver and fault == "cannot load":
        raise CheckpointError("There is no model on this machine.")
    if os.getpid() != driver:
        ray.MAX_ATTEMPTS = 2
        ray.write_part = partial(write_and_die, ray.write_part, fault, died)  # type: ignore[assignment]
    return ImageCaptioner.from_pretrained(checkpoint)


def write_and_die(write: Any, fault: str, died: Path, *arguments: Any) -> None:
    if fault == "dies once":
        write(*arguments)
    if fault == "dies always" or not died.exists():
        died.touch()
        os._exit(1)


def main() -> int:
    checkpoint, tar, out, fault = sys.argv[1:]
    died = Path(out).with_suffix(".died")
    loader = partial(load, checkpoint, os.getpid(), fault, died)
    try:
        discovered = Discovered()
        result = ray.caption_on_ray(loader, shards([tar], discovered), Path(out), discovered=discovered, num_beams=1)
    except OSError as error:
        print(error)
        return 1
    print(result, "died" if died.exists() else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
