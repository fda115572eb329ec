"""A model over all ranks: whole on each of them (DDP), or a part of every weight on each (FSDP2)."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from training.distributed.world import World


def shard(model: nn.Module, world: World, autocast: bool) -> None:
    """Split every parameter of `model` over the ranks, in place: each block is put together only while it computes.

    The weights must be the same on all ranks. Averages and optimiser are to be made from the model afterwards; they
    are then split like it. A rank alone has nothing to split.

    Under bfloat16 `autocast` blocks travel in bfloat16, in which their products are computed anyway; what is added up
    over ranks is float32. Sums of the residual stream stay float32, as without sharding.
    """
    if world.size == 1:
        return
    mesh = init_device_mesh(world.device.type, (world.size,))
    low = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.get_submodule("blocks").children():
        fully_shard(block, mesh=mesh, mp_policy=low if autocast else MixedPrecisionPolicy())
    fully_shard(model, mesh=mesh)


def over_ranks(model: nn.Module, world: World, try_out: Callable[[nn.Module], Tensor]) -> nn.Module:
    """The model as it is called in training, whose gradients are means over the ranks. `try_out` calls it once."""
    if world.size == 1 or isinstance(model, FSDPModule):
        return model
    devices = [world.device] if world.device.type == "cuda" else None
    parallel = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    # DDP lays out its buckets anew after the first backward pass, and the order in which ranks are summed depends
    # on the layout. A pass over nothing settles it, so that a resumed run sums as one that never stopped.
    torch.autograd.backward(try_out(parallel).sum())
    model.zero_grad(set_to_none=True)
    return parallel


@contextlib.contextmanager
def unsynced(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Where `wanted`, gradients stay on their rank, to be summed over ranks with those of the step's last pass."""
    with contextlib.ExitStack() as stack:
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(not wanted)
        elif wanted and isinstance(model, DistributedDataParallel):
            stack.enter_context(model.no_sync())
        yield
