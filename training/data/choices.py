"""What is drawn for each use of a sample before it is read: the caption variant, caption drop, and the mirror image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.policy import Policy
from training.data.population import Population
from training.data.randomness import Purpose, uniform

DROPPED = -1  # in place of a variant: the null embedding, or the null class, is used


@dataclass(frozen=True, slots=True, eq=False)
class Choices:
    """One entry a use [G]."""

    samples: NDArray[np.uint64]  # ids
    variants: NDArray[np.int8]  # which caption variant, DROPPED for none; 0 for the class where there is no text
    flipped: NDArray[np.bool_]  # whether the flipped latents are read


class Chooser:
    """Chooses for the uses of `population` under `policy`. Each choice depends on (seed, sample id, visit) alone."""

    def __init__(self, population: Population, seed: int, policy: Policy) -> None:
        self._population, self._seed, self._policy = population, seed, policy
        width = population.tokens.shape[1]
        self._weights = np.array([s.captions + (0.0,) * (width - len(s.captions)) for s in policy.datasets])
        self._flipped = np.array([share.flipped for share in policy.datasets])

    def choose(self, rows: NDArray[np.int64], visits: NDArray[np.int64]) -> Choices:
        """The choices for the uses (rows[i], visits[i])."""
        samples = self._population.sample[rows]
        datasets = self._population.datasets_of(rows)
        variants = self._variants(rows, visits, samples, datasets)
        if self._policy.caption_drop:
            dropped = uniform(self._seed, visits, samples, Purpose.CAPTION_DROP) < self._policy.caption_drop
            variants[dropped] = DROPPED
        flipped = np.zeros(len(rows), np.bool_)
        if self._flipped.any() and self._population.flipped is not None:
            flipped = uniform(self._seed, visits, samples, Purpose.FLIP) < self._flipped[datasets]
            flipped &= self._population.flipped[rows] >= 0
        return Choices(samples, variants, flipped)

    def _variants(
        self,
        rows: NDArray[np.int64],
        visits: NDArray[np.int64],
        samples: NDArray[np.uint64],
        datasets: NDArray[np.int64],
    ) -> NDArray[np.int8]:
        """By the weights of the dataset, among the variants that the sample has."""
        if self._weights.shape[1] <= 1:
            return np.zeros(len(rows), np.int8)
        reach = np.cumsum(self._weights[datasets] * (self._population.tokens[rows] > 0), axis=1)
        drawn = uniform(self._seed, visits, samples, Purpose.CAPTION_VARIANT) * reach[:, -1]
        drawn = np.minimum(drawn, np.nextafter(reach[:, -1], 0))  # the product may round up to the end
        return np.argmax(reach > drawn[:, None], axis=1).astype(np.int8)
