"""Muon: momentum whose every matrix is made orthogonal before it is taken as a step (Jordan et al. 2024).

`torch.optim.Muon` makes them so in bfloat16, which CPUs without instructions for it compute a hundred times slower.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

_STEEP: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that takes singular values to near 1 in few rounds, as published with Muon."""

_ROUNDS: Final = 5
_LIKE_ADAM: Final = 0.2  # root mean square of Adam's usual steps, so that both take the same rates (Liu et al. 2025)


class Muon(torch.optim.Optimizer):
    """For matrices of hidden layers [out, in], and filters of convolutions, taken as matrices [out, all others];
    embeddings and vectors are AdamW's. Nesterov momentum; decoupled weight decay.

    No step moves a layer's output by more than its rate, in whatever direction: a good start stays one, where Adam's
    steps, which add up over all inputs, spoil it.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], rate: float, *, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": rate, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step for all matrices that have a gradient; those of one shape are made orthogonal together.

        Raises ValueError for a closure, which nothing here needs.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                gradient = matrix.grad.flatten(1)
                mean = self.state[matrix].setdefault("mean", torch.zeros_like(gradient))
                mean.lerp_(gradient, 1 - group["momentum"])
                alike[gradient.shape].append((matrix, gradient.lerp(mean, group["momentum"])))
            for shape, pairs in alike.items():
                steps = orthogonal(torch.stack([ahead for _, ahead in pairs]))
                for (matrix, _), step in zip(pairs, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(step.reshape(matrix.shape), alpha=-group["lr"] * _LIKE_ADAM * max(shape) ** 0.5)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest (half-)orthogonal matrices, roughly: singular values between 0.7 and 1.2. [K, M, N]."""
    turned = matrices.shape[-2] > matrices.shape[-1]
    near = matrices.mT if turned else matrices
    near = near / (torch.linalg.matrix_norm(near, keepdim=True) + 1e-7)
    a, b, c = _STEEP
    for _ in range(_ROUNDS):
        square = near @ near.mT
        near = a * near + (b * square + c * square @ square) @ near
    return near.mT if turned else near


def matrices_and_others(*modules: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that Muon takes, the matrices of repeated layers; and the others."""
    named = [item for module in modules for item in module.named_parameters()]
    matrices = [p for name, p in named if p.ndim == 2 and ".layers." in f".{name}"]
    return matrices, [p for _, p in named if all(p is not matrix for matrix in matrices)]
