"""A process that imports the trainer once, and forks the ranks of one job after another.

Its argument is a file with a pickled list of jobs: the number of ranks, the name of a function below, its arguments.
"""

import os
import pickle
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from training.config import EmaConfig, OptimiserConfig, RunConfig
from training.data.manifest import open_manifest
from training.distributed.parallel import shard
from training.distributed.sharded import is_sharded, whole
from training.distributed.world import join_world
from training.ema import Averages
from training.models.config import PixArtConfig
from training.models.pixart import PixArt
from training.optimiser import Optimiser
from training.trainer import train


def trained(config: RunConfig, latents: str, text: str) -> None:
    """A run."""
    train(config, open_manifest(latents, text), lambda line: None)


def skipping(model: PixArtConfig, out: str) -> None:
    """Three optimiser steps of a sharded model, at the second of which one rank has a gradient that is no number.

    Rank 0 writes the weights and the average after each, and the norms.
    """
    world = join_world("cpu")
    torch.manual_seed(0)
    pixart = PixArt(model)
    shard(pixart, world, autocast=False)
    averages = Averages(pixart, EmaConfig(decay=0.5, warmup=False))
    optimiser = Optimiser(pixart, OptimiserConfig(lr=1e-2, warmup_steps=0, clip=1.0))
    states: list[dict[str, Any]] = []
    for step in range(3):
        output = pixart(torch.ones(1, 4, 8, 8), torch.tensor([5]), torch.ones(1, 16, 20), torch.tensor([3]))
        wrong = float("nan") if step == 1 and world.rank == 1 else 1.0
        torch.autograd.backward((output - 1).square().mean() * wrong)
        norm = optimiser.step(step)
        averages.update(step, step, step + 1, norm.isfinite())
        states.append(
            {
                "norm": norm.item(),
                "weights": _gathered(pixart.state_dict()),
                "average": _gathered(averages.ema.state_dict()),
                "moments": _gathered(optimiser.state_dict()),
                "sharded": all(is_sharded(p) for p in pixart.parameters()),
            }
        )
    if world.rank == 0:
        torch.save(states, out)
    world.leave()


def _gathered(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: whole(tensor.detach()).clone() for name, tensor in tensors.items()}


def _rank(number: int, size: int, port: int, job: tuple[str, tuple[Any, ...]]) -> None:
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(where, RANK=str(number), WORLD_SIZE=str(size), LOCAL_RANK=str(number))
    {"trained": trained, "skipping": skipping}[job[0]](*job[1])


def main() -> None:
    """Do the jobs in order; the first rank that fails ends it."""
    torch.set_num_threads(1)
    for size, *job in pickle.loads(Path(sys.argv[1]).read_bytes()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = set()
        for number in range(size):
            child = os.fork()
            if child == 0:
                _rank(number, size, port, tuple(job))
                os._exit(0)
            children.add(child)
        while children:
            child, status = os.wait()
            children.remove(child)
            if status:
                for other in children:  # it would wait for the one that is gone
                    os.kill(other, signal.SIGKILL)
                sys.exit(f"a rank of {job[0]} failed")


if __name__ == "__main__":
    main()
