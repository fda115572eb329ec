"""AdamW, and Muon for the blocks if asked for, with warm-up, a clipped gradient, and steps that are skipped on the
device where the gradient is not finite."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from training.config import OptimiserConfig
from training.distributed.sharded import assign, whole
from training.muon import Muon, is_muons

_MOMENTUM: Final = "momentum"


def learning_rate(config: OptimiserConfig, step: int) -> float:
    """The rate of the `step`-th optimiser step, counted from 0: linear up to `lr` over the warm-up, then constant."""
    return config.lr * warmed(config, step)


def warmed(config: OptimiserConfig, step: int) -> float:
    """The share of the full rate that the `step`-th step has."""
    return min(1.0, (step + 1) / max(1, config.warmup_steps))


class Optimiser:
    """Steps the parameters of `model`. State is saved by parameter name, as plain tensors."""

    def __init__(self, model: nn.Module, config: OptimiserConfig) -> None:
        self._config = config
        self._parameters = dict(model.named_parameters())
        muons = {name: p for name, p in self._parameters.items() if config.muon_lr and is_muons(name, p)}
        self._muon = Muon(muons, config.weight_decay)
        self._adamw = torch.optim.AdamW(
            [p for name, p in self._parameters.items() if name not in muons],
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
        finite = norm.isfinite()
        self._adamw.param_groups[0]["lr"] = learning_rate(self._config, step)
        self._adamw.found_inf = (~finite).float()  # type: ignore[attr-defined]  # undeclared, as the scaler sets it
        self._adamw.step()
        self._muon.step(self._config.muon_lr * warmed(self._config, step), finite)
        for parameter in self._parameters.values():
            parameter.grad = None
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """`exp_avg.NAME`, `exp_avg_sq.NAME` and `step.NAME` of what AdamW steps, `momentum.NAME` of what Muon
        does; empty before the first step."""
        moments = {
            f"{moment}.{name}": value
            for name, parameter in self._parameters.items()
            for moment, value in self._adamw.state.get(parameter, {}).items()
        }
        return moments | {f"{_MOMENTUM}.{name}": mean for name, mean in self._muon.state_dict().items()}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave, whole tensors also where the model is sharded."""
        for full_name, tensor in tensors.items():
            moment, name = full_name.split(".", 1)
            if moment == _MOMENTUM:
                self._muon.load(name, tensor)
                continue
            parameter = self._parameters[name]
            counts = moment == "step"  # one number, which is never split
            state = tensor.new_empty((), device=parameter.device) if counts else torch.empty_like(parameter.detach())
            assign(state, tensor)
            self._adamw.state[parameter][moment] = state
