"""The processes of a run: who we are, and the few things that all ranks do together."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from schemas.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """This process among the others. `control` is a gloo group: what goes over it never waits for the GPU."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None

    def largest(self, value: int) -> int:
        """The largest of all ranks' values."""
        if self.size == 1:
            return value
        tensor = torch.tensor(int(value))
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return int(tensor)

    def from_first(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def from_all(self, value: T) -> list[T]:
        """Every rank's value in order of rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return cast(list[T], values)

    def on_first(self, act: Callable[[], T]) -> T:
        """Do `act` on rank 0 alone; its result, or the `UserError` or `OSError` that ended it, on every rank.

        Ranks that were left waiting would fail on the lost connection, and bury the error under theirs.
        """
        if self.size == 1:
            return act()
        outcome: list[T] = []
        error: UserError | OSError | None = None
        if self.rank == 0:
            try:
                outcome.append(act())
            except (UserError, OSError) as caught:
                error = caught
        outcome, error = self.from_first((outcome, error))
        if error is not None:
            raise error
        return outcome[0]

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def leave(self) -> None:
        """Shut the process groups down."""
        if self.size > 1:
            dist.destroy_process_group()


def join_world(device: str) -> World:
    """Join the run that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK), or be alone. `device`: auto, cpu or cuda."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch finds no CUDA device. Use --device cpu, or mend the driver.")
    if device == "cpu" or not torch.cuda.is_available():
        chosen = torch.device("cpu")
    else:
        local, found = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= found:
            raise UserError(
                f"process {local + 1} of this machine has no CUDA device, torch finds {found}. Start {found} a machine "
                f"(--nproc-per-node {found}), or use --device cpu."
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if size == 1:
        return World(rank, size, chosen, None)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen, dist.new_group(backend="gloo"))
