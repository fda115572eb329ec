"""Samples that are kept out of training, to measure the loss on: chosen by name alone, so that all runs agree."""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from training.data.population import Population, Stratum
from training.data.randomness import Purpose, uniform

HELD_OUT_SEED: Final = 0x6C6F_7373
"""Apart from the seeds that people give to training."""

_PIECE: Final = 1 << 18  # samples looked at together


def held_out_draws(samples: NDArray[np.uint64], seed: int = HELD_OUT_SEED) -> NDArray[np.float64]:
    """A number in [0, 1) for each sample id [N]; a share of s is held out where it is below s."""
    pieces = [samples[start : start + _PIECE] for start in range(0, len(samples), _PIECE)]
    drawn = [uniform(seed, np.zeros(len(piece), np.int64), piece, Purpose.HELD_OUT) for piece in pieces]
    return np.concatenate(drawn) if drawn else np.empty(0)


def without_held_out(population: Population, share: float) -> Population:
    """`population` without the held-out share, under a digest of its own; itself for a share of 0.

    Raises `UserError` if nothing is left.
    """
    if not share:
        return population
    kept = held_out_draws(population.sample) >= share
    if not kept.any():
        raise UserError(f"--held-out {share:g} leaves nothing to train on. Hold out less.")
    members, strata, first = [], [], 0
    for stratum in population.strata:
        mine = population.members[stratum.first : stratum.first + stratum.size]
        mine = mine[kept[mine]]
        if len(mine):
            members.append(mine)
            strata.append(Stratum(stratum.dataset, stratum.bucket, first, len(mine)))
            first += len(mine)
    digest = f"{population.digest}-without-{share!r}"
    return replace(population, digest=digest, members=np.concatenate(members), strata=tuple(strata))
