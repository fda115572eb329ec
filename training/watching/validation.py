"""The loss on samples that are held out, while training: at fixed timesteps and noise, of raw and averaged weights.

What is measured is `evaluation.loss`; here it is shared out over the ranks. Batches are formed before they are shared
out, and their losses put together in order, so the value is the same bits whatever the number of ranks.
"""

import time
from contextlib import closing
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training.config import Recipe
from training.data.held_out import HELD_OUT_SEED
from training.data.manifest import Manifest
from training.data.prefetch import Prefetcher
from training.data.reader import Reader
from training.distributed.world import World
from training.ema import Average
from training.evaluation.loss import (
    LOSS_SEED,
    HeldOut,
    HeldOutLoss,
    grid,
    held_out_batches,
    held_out_rows,
    summarised,
)
from training.network import network_of
from training.watching.lent import lent

TIMESTEPS: Final = 8
"""How many timesteps each sample is looked at: in the middle of as many equal parts of all."""

_THREADS: Final = 2
_AHEAD: Final = 2


class Validation:
    """The held-out loss of one run, on one rank; all ranks call it together.

    `samples` are those of the held-out share whose ids hash lowest. Raises `UserError` if there are none.
    """

    def __init__(self, recipe: Recipe, manifest: Manifest, world: World, samples: int, micro_batch: int) -> None:
        rows = held_out_rows(manifest, samples, HELD_OUT_SEED, recipe.held_out)
        self._manifest, self._world = manifest, world
        self._batches = list(held_out_batches(manifest, rows, micro_batch))
        self._held_out = HeldOut(
            network=network_of(recipe.model),
            objective=recipe.objective,
            facts=manifest.facts,
            timesteps=grid(recipe.objective, TIMESTEPS),
            autocast=recipe.precision == "bf16",
        )

    def __call__(self, model: nn.Module, average: Average) -> dict[str, Any]:
        """The held-out losses of `model` as it is and of `average`, as a record without the clock."""
        started = time.perf_counter()
        raw, ema = self._measure(model, None), self._measure(model, average)
        return {"raw": asdict(raw), "ema": asdict(ema), "seconds": time.perf_counter() - started}

    def _measure(self, model: nn.Module, average: Average | None) -> HeldOutLoss:
        own = self.share(model, average)
        found = {number: losses for rank in self._world.from_all(own) for number, losses in rank.items()}
        in_order = np.concatenate([found[number] for number in range(len(self._batches))], axis=2)
        return summarised(in_order, self._held_out.timesteps.tolist(), LOSS_SEED)

    def share(self, model: nn.Module, average: Average | None) -> dict[int, NDArray[np.float64]]:
        """This rank's share of the batches by number: the losses of each, see `HeldOut.losses`."""
        world, own = self._world, dict[int, NDArray[np.float64]]()
        # Every rank makes as many forward passes, which a model that is split over them needs; what is done twice
        # for it is thrown away.
        turns = -(-len(self._batches) // world.size)
        mine = [(turn * world.size + world.rank) % len(self._batches) for turn in range(turns)]
        work = (self._batches[number] for number in mine)
        reader = Reader(self._manifest)
        stream = Prefetcher(self._manifest, reader, work, _THREADS, _AHEAD, world.device)
        with closing(stream), lent(model, average):
            for number, features in zip(mine, stream, strict=True):
                own[number] = self._held_out.losses(model, features)
        return own


def told(step: int, record: dict[str, Any]) -> str:
    """A record as a line for people."""
    ema = record["ema"]
    by_timestep = "  ".join(f"{at['timestep']:g}: {at['mse']:.4g}" for at in ema["by_timestep"])
    return (
        f"held out at step {step:,}: loss {record['raw']['loss']:.4g} raw, {ema['loss']:.4g} averaged; averaged mse by "
        f"timestep  {by_timestep}"
    )
