"""A Ray cluster of several nodes on this machine, for tests: told on stdin to lose a node or to get one.

Prints its address, then answers each line (`lose`, `add`) with `done`. Ends when stdin does.
"""

import sys

from ray.cluster_utils import Cluster

MEMORY = 100 << 20


def main(nodes: int) -> None:
    """A head without room for work, and `nodes` with one CPU each."""
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
