"""The model of a run, lent for a look at it while it trains: with averaged weights if asked for, and back unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from training.distributed.sharded import local
from training.ema import Average


@contextmanager
def lent(model: nn.Module, average: Average | None = None) -> Iterator[nn.Module]:
    """`model` in evaluation mode, with the weights of `average` where it is given; whatever happens within.

    Weights change places tensor by tensor, so no second copy of the model is held, and come back bit for bit.
    """
    was_training = model.training
    try:
        model.eval()
        _exchange(model, average)
        yield model
    finally:
        _exchange(model, average)
        model.train(was_training)


@torch.no_grad()
def _exchange(model: nn.Module, average: Average | None) -> None:
    if average is None:
        return
    if isinstance(model, FSDPModule):
        model.reshard()  # or the root's weights would stay put together as they were in the last forward pass
    averaged = average.state_dict()
    for name, parameter in model.named_parameters():
        live, other = local(parameter.detach()), local(averaged[name])
        kept: Tensor = live.clone()
        live.copy_(other)
        other.copy_(kept)
