"""Samples that exist as numbers alone, for tests of the plan."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from training.data.population import Population, grouped

MakePopulation = Callable[..., Population]


@pytest.fixture(scope="session")
def make_population() -> MakePopulation:
    """`make_population([[12, 5], [3, 0]])`: datasets, and how many samples each has in each bucket.

    Buckets come mixed; with `runs` neighbours share one. Captions have 1 to 120 tokens, or 0 with the chance `lacking`,
    though one of a sample has always some. `flipped` is the share of samples that have flipped latents.
    """

    def make(
        sizes: Sequence[Sequence[int]], variants: int = 1, lacking: float = 0.0, flipped: float = 0.0, seed: int = 0
    ) -> Population:
        rng = np.random.default_rng(seed)
        bucket = np.concatenate([rng.permutation(np.repeat(np.arange(len(counts)), counts)) for counts in sizes])
        starts = (0, *np.cumsum([sum(counts) for counts in sizes]).tolist())
        members, strata = grouped(bucket.astype(np.int16), starts)
        tokens = rng.integers(1, 121, (len(bucket), variants))
        kept = rng.integers(variants, size=len(bucket))
        lost = (rng.random(tokens.shape) < lacking) & (np.arange(variants) != kept[:, None])
        return Population(
            digest=f"digest-{seed}",
            starts=starts,
            strata=strata,
            members=members,
            latent_cells=tuple((8, 8 + 4 * number) for number in range(max(map(len, sizes)))),
            sample=np.arange(1000, 1000 + len(bucket), dtype=np.uint64),
            tokens=np.where(lost, 0, tokens).astype(np.uint16),
            flipped=np.where(rng.random(len(bucket)) < flipped, 0, -1).astype(np.int32) if flipped else None,
        )

    return make
