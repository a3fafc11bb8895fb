"""A Ray cluster of two nodes with processes of their own on this machine.

`python -m tests.bulk.two_nodes FOLDER`, with RAY_TMPDIR: an empty folder

Prints its address; once FOLDER holds a table's first files and the second node works as well, every process of that
is killed with SIGKILL.
"""

import os
import sys
import time
from pathlib import Path

from ray.cluster_utils import Cluster

ROOM = 80 * 2**20
"""Bytes of each node's object store."""
NOTICES = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""So that a dead node is noticed within two seconds, not fifteen."""


def family(process: int) -> list[int]:
    """The process and all that it started, and these started."""
    found = [process]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def captions(process: int) -> bool:
    """Whether it is a worker that is at a shard; Ray renames a process after what it does."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::MapWorker(MapBatches(Worker)).submit")
    except FileNotFoundError:
        return False


def main(folder: Path) -> None:
    temporary = Path(os.environ["RAY_TMPDIR"])
    head = {"num_cpus": 2, "object_store_memory": ROOM, "include_dashboard": False, "temp_dir": str(temporary)}
    (temporary / "ray").mkdir()  # for the address of a cluster, where Ray expects the folder
    cluster = Cluster(initialize_head=True, head_node_args={**head, "_system_config": NOTICES})
    second = cluster.add_node(num_cpus=1, object_store_memory=ROOM)
    print(cluster.address, flush=True)
    started = [info.process.pid for kind in second.all_processes.values() for info in kind]
    while not (any(map(captions, family(started[0]))) and list(folder.glob("part-*.parquet"))):
        time.sleep(0.05)
    for process in {member for first in started for member in family(first)}:
        os.kill(process, 9)
    print("killed", flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
