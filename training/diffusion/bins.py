"""The loss by timestep, gathered on the device, so that the host waits for it at log steps only."""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

EDGES: Final = (100.0, 250.0, 500.0, 750.0)

Totals = tuple[tuple[float, float], ...]


class BinnedLoss:
    """Sums of a loss over bins of the timestep: below edges[0], from each edge to the next, and from edges[-1] on.

    `totals` are those of a run that goes on: sum and count of each bin. Samples whose loss is not finite are left out.
    Raises `ValueError` for edges that do not ascend, and for totals of another number of bins.
    """

    def __init__(self, device: torch.device, edges: Sequence[float] = EDGES, totals: Totals = ()) -> None:
        if list(edges) != sorted(set(edges)):
            raise ValueError(f"edges {list(edges)} do not ascend")
        inf = float("inf")
        self.bounds = tuple(zip((-inf, *edges), (*edges, inf), strict=True))
        if totals and len(totals) != len(self.bounds):
            raise ValueError(f"{len(totals)} totals for {len(self.bounds)} bins")
        self.totals = totals or ((0.0, 0.0),) * len(self.bounds)
        bounds = torch.tensor(self.bounds, dtype=torch.float64, device=device)
        self._low, self._high = bounds[:, :1], bounds[:, 1:]
        self._pending = torch.zeros(len(self.bounds), 2, dtype=torch.float64, device=device)

    def add(self, timesteps: Tensor, losses: Tensor, weights: Tensor) -> None:
        """Take in samples of weights [B] with `losses` [B] at `timesteps` [B], all on the device. Does not wait."""
        counts = weights.double() * losses.isfinite()
        sums = counts * losses.detach().double().nan_to_num(0.0, 0.0, 0.0)
        # A product with the membership of each bin, since a scatter would add in no certain order on a GPU.
        inside = ((timesteps >= self._low) & (timesteps < self._high)).double()
        self._pending += inside @ torch.stack([sums, counts], dim=1)

    def settle(self, total: Callable[[Tensor], Tensor]) -> None:
        """Bring everything to `totals` on the host, where `total` sums over ranks; every rank calls it together."""
        added = total(self._pending).tolist()
        self._pending.zero_()
        self.totals = tuple((s + a, n + b) for (s, n), (a, b) in zip(self.totals, added, strict=True))

    def means(self) -> dict[str, float | None]:
        """The settled mean loss of each bin by the bin's name; None where no sample fell into it."""
        return {_name(*bound): s / n if n else None for bound, (s, n) in zip(self.bounds, self.totals, strict=True)}

    def restart(self) -> None:
        """Begin anew with the settled sums at zero."""
        self.totals = ((0.0, 0.0),) * len(self.bounds)


def _name(low: float, high: float) -> str:
    return f"{max(low, 0.0):g}{'+' if high == float('inf') else f'-{high:g}'}"
