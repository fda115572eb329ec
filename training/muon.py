"""Muon for the matrices of the blocks: momentum is made orthogonal before it is taken as a step (Jordan et al. 2024).

`torch.optim.Muon` computes in bfloat16, which many CPUs are slow at, and cannot leave out a step on the device.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

_STEEP: Final = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic that takes singular values to near 1 in few rounds, as published with Muon."""

_ROUNDS: Final = 5
_MOMENTUM: Final = 0.95
_LIKE_ADAM: Final = 0.2  # root mean square of Adam's usual steps, so that both take rates of one size (Liu et al. 2025)
_TOGETHER: Final = 8  # matrices of one shape at a time, which bounds memory


def is_muons(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes this parameter: a matrix of a block's attention or perceptron.

    Embeddings, tables, modulation and the output are AdamW's: their rows are no directions of one space.
    """
    return name.startswith("blocks.") and name.endswith(".weight") and parameter.ndim == 2 and "modulation" not in name


class Muon:
    """Steps `matrices`, by name, with Nesterov momentum and decoupled weight decay."""

    def __init__(self, matrices: Mapping[str, nn.Parameter], weight_decay: float) -> None:
        self._matrices, self._weight_decay = dict(matrices), weight_decay
        self._means = dict[str, Tensor]()

    @torch.no_grad()
    def step(self, rate: float, finite: Tensor) -> None:
        """One step at `rate`; none, decided on the device, where `finite` (0-d) is false."""
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for name, matrix in self._matrices.items():
            assert matrix.grad is not None
            mean = self._means.setdefault(name, torch.zeros_like(matrix.detach()))
            mean.copy_(torch.where(finite, mean.lerp(matrix.grad, 1 - _MOMENTUM), mean))
            alike[matrix.shape].append((matrix, matrix.grad.lerp(mean, _MOMENTUM)))
        for shape, pairs in alike.items():
            scale = rate * _LIKE_ADAM * max(shape) ** 0.5
            for start in range(0, len(pairs), _TOGETHER):
                some = pairs[start : start + _TOGETHER]
                steps = orthogonal(torch.stack([ahead for _, ahead in some]))
                for (matrix, _), step in zip(some, steps, strict=True):
                    moved = (matrix * (1 - rate * self._weight_decay)).sub_(step, alpha=scale)
                    matrix.copy_(torch.where(finite, moved, matrix))

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum of each matrix, by its name; empty before the first step."""
        return self._means

    def load(self, name: str, mean: Tensor) -> None:
        """Take over the momentum of one matrix."""
        self._means[name] = torch.empty_like(self._matrices[name].detach()).copy_(mean)


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest (half-)orthogonal matrices [K, M, N], roughly: singular values between 0.7 and 1.2.

    On a GPU in bfloat16, as published; on a CPU in the type that they have.
    """
    turned = matrices.shape[-2] > matrices.shape[-1]
    near = matrices.mT if turned else matrices
    near = near / (torch.linalg.matrix_norm(near, keepdim=True) + 1e-7)
    near = near.bfloat16() if near.is_cuda else near
    a, b, c = _STEEP
    for _ in range(_ROUNDS):
        square = near @ near.mT
        near = a * near + (b * square + c * square @ square) @ near
    return (near.mT if turned else near).to(matrices.dtype)
