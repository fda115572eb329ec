"""AdamW with warm-up, a clipped gradient, and steps that are skipped on the device where the gradient is not finite."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.config import OptimiserConfig
from training.distributed.sharded import assign, whole


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """The rate of the `step`-th optimiser step, counted from 0: linear up to `lr` over the warm-up, then constant."""
    return config.lr * min(1.0, (step + 1) / max(1, config.warmup_steps))


class Optimiser:
    """Steps the parameters of `model`. State is saved by parameter name, as plain tensors."""

    def __init__(self, model: nn.Module, config: OptimiserConfig) -> None:
        self._config = config
        self._parameters = dict(model.named_parameters())
        self._adamw = torch.optim.AdamW(
            self._parameters.values(),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, step: int) -> Tensor:
        """Clip, step, clear the gradients. The gradient's norm before clipping, 0-d, on the device.

        Where the norm is not finite nothing changes, neither weights nor moments. Gradients are equal on all ranks, so
        all ranks decide alike. The decision stays on the device: AdamW's fused kernel reads `found_inf`, which is how
        torch's own gradient scaler skips a step.
        """
        norm = whole(nn.utils.clip_grad_norm_(self._parameters.values(), self._config.clip, foreach=True))
        self._adamw.param_groups[0]["lr"] = learning_rate(self._config, step)
        self._adamw.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # undeclared, as the scaler sets it
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """`exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME` of each parameter; empty before the first step."""
        return {
            f"{moment}.{name}": value
            for name, parameter in self._parameters.items()
            for moment, value in self._adamw.state[parameter].items()
        }

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, whole tensors also where the model is sharded."""
        for full_name, tensor in tensors.items():
            moment, name = full_name.split(".", 1)
            parameter = self._parameters[name]
            counts = moment == "step"  # one number, which is never split
            state = tensor.new_empty((), device=parameter.device) if counts else torch.empty_like(parameter.detach())
            assign(state, tensor)
            self._adamw.state[parameter][moment] = state
