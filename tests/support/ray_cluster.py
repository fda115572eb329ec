"""A Ray cluster of several nodes on this machine, in a process of its own that loses a node or gets one when told so.

The process prints its address, then answers each line on stdin (`lose`, `add`) with `done`. It ends when stdin does.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from campaign import environment

MEMORY = 100 << 20


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster in a process of its own."""

    process: "subprocess.Popen[str]"
    address: str

    def say(self, line: str) -> None:
        """`lose` a node, or `add` one."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"


@contextmanager
def cluster_of(nodes: int) -> Iterator[Nodes]:
    """Start a cluster of `nodes` with one CPU each; it ends with the context."""
    line = [sys.executable, __file__, str(nodes)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(line, text=True, env=cluster_environment(), **pipes) as process:
        assert process.stdout is not None
        yield Nodes(process, process.stdout.readline().strip())
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def cluster_environment() -> dict[str, str]:
    """For the cluster and its drivers: without the token that a local Ray of these tests may have left."""
    kept = {name: value for name, value in environment().items() if not name.startswith("RAY_AUTH")}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"}


def main(nodes: int) -> None:
    """A head without room for work, and `nodes` with one CPU each."""
    from ray.cluster_utils import Cluster  # only in the process that is the cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    workers = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(nodes)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            cluster.remove_node(workers.pop(0), allow_graceful=False)
        else:
            workers.append(cluster.add_node(num_cpus=1, object_store_memory=MEMORY))
        print("done", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))
