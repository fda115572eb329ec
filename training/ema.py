"""The exponential moving average of the weights, in float32."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.config import EmaConfig

_CHUNK = 32  # tensors a launch: bounds the memory of the differences


class Ema:
    """ema += (1 - decay) (weights - ema) after each step; starts as a copy of the weights."""

    def __init__(self, model: nn.Module, config: EmaConfig) -> None:
        self._config = config
        self._names = [name for name, _ in model.named_parameters()]
        self._live = [parameter.detach() for parameter in model.parameters()]
        self._averaged = [parameter.clone() for parameter in self._live]

    def decay(self, step: int) -> float:
        """The decay of the `step`-th update, counted from 0."""
        ramp = (1 + step) / (10 + step) if self._config.warmup else 1.0
        return min(self._config.decay, ramp)

    @torch.no_grad()
    def update(self, step: int, taken: Tensor) -> None:
        """Move towards the weights. `taken` is a 0-d bool on the device: where false, nothing moves, without a sync."""
        weight = taken * (1 - self.decay(step))
        for start in range(0, len(self._live), _CHUNK):
            averaged = self._averaged[start : start + _CHUNK]
            difference = torch._foreach_sub(self._live[start : start + _CHUNK], averaged)
            torch._foreach_mul_(difference, weight)
            torch._foreach_add_(averaged, difference)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self._names, self._averaged, strict=True))

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        for name, averaged in self.state_dict().items():
            averaged.copy_(tensors[name])
