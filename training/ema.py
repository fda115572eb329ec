"""Moving averages of the weights, in float32: the exponential one, and the power function's of EDM2.

Parameters are averaged, the persistent buffers are copied, so that an average has all keys of the model's state dict.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from training.config import EmaConfig
from training.distributed.sharded import assign, local


class Average:
    """A copy of a model's state, for those below to move. State is given and taken by name."""

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict(keep_vars=True)
        self._names = [name for name, tensor in state.items() if isinstance(tensor, nn.Parameter)]
        self._live = [state[name] for name in self._names]
        self._averaged = [parameter.detach().clone() for parameter in self._live]
        self._live_buffers = {name: tensor for name, tensor in state.items() if name not in set(self._names)}
        self._buffers = {name: tensor.detach().clone() for name, tensor in self._live_buffers.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters and the buffers by name."""
        return dict(zip(self._names, self._averaged, strict=True)) | self._buffers

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, whole tensors also where the model is sharded."""
        for name, averaged in self.state_dict().items():
            assign(averaged, tensors[name])

    def _copy_buffers(self) -> None:
        if self._buffers:
            torch._foreach_copy_(list(self._buffers.values()), [self._live_buffers[name] for name in self._buffers])

    def _parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """This rank's part of the averages, and of the weights."""
        return [local(tensor) for tensor in self._averaged], [local(tensor) for tensor in self._live]


class Ema(Average):
    """ema += (1 - decay) (weights - ema) after each step; starts as a copy of the weights."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        super().__init__(model)
        self._config = config

    def decay(self, step: int) -> float:
        """The decay of the `step`-th update, counted from 0."""
        ramp = (1 + step) / (10 + step) if self._config.warmup else 1.0
        return min(self._config.decay, ramp)

    @torch.no_grad()
    def update(self, step: int, taken: Tensor) -> None:
        """Move towards the weights. `taken` is a 0-d bool on the device: where false, nothing moves, without a sync."""
        weight = taken * (1 - self.decay(step))
        averaged, live = self._parts()
        # One pass over memory, which is what this costs. A weight from the device has to be a tensor, one for each.
        torch._foreach_lerp_(averaged, live, [weight] * len(averaged))
        self._copy_buffers()


class PowerEma(Average):
    """The mean of the weights over all images seen, weighed by images seen to the power of gamma.

    Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (2312.02696), section 3.1. `std`
    is the relative width of that profile, its standard deviation as a share of the run so far.
    """

    def __init__(self, model: nn.Module, std: float) -> None:
        super().__init__(model)
        self._gamma = power_of(std)

    @torch.no_grad()
    def update(self, images_before: int, images_after: int) -> None:
        """Take in the weights after a step that went from one number of images seen to the other.

        A step that was skipped counts as well, with the weights as they stayed: the profile is one over images seen,
        whatever was done with them, which is what the reconstruction relies on.
        """
        averaged, live = self._parts()
        torch._foreach_lerp_(averaged, live, 1 - power_decay(self._gamma, images_before, images_after))
        self._copy_buffers()


def power_of(std: float) -> float:
    """The exponent gamma of the profile of relative width `std`, above 0 and at most `WIDEST_POWER_EMA`.

    std² = (gamma + 1) / ((gamma + 2)² (gamma + 3)), the paper's equation 16, solved for the one gamma from 0 up.
    """
    return float(max(root.real for root in np.roots([1, 7, 16 - std**-2, 12 - std**-2])))


def power_decay(gamma: float, images_before: int, images_after: int) -> float:
    """The share of the average that stays at such a step: (before / after)^(gamma + 1), 0 at the first."""
    return (images_before / images_after) ** (gamma + 1)


class Averages:
    """All averages of a run: the exponential one, and one of each relative width in `power`."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self.ema = Ema(model, config)
        self.power = {std: PowerEma(model, std) for std in config.power}

    def update(self, step: int, images_before: int, images_after: int, taken: Tensor) -> None:
        """Take in the weights after the `step`-th step, counted from 0; see the averages' own `update`."""
        self.ema.update(step, taken)
        for average in self.power.values():
            average.update(images_before, images_after)
