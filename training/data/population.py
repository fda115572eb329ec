"""What the plan knows of the samples: which bucket each is in, how many tokens its captions have, what it is called."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Stratum:
    """The samples of one dataset in one bucket: `members[first : first + size]` of the population."""

    dataset: int
    bucket: int
    first: int
    size: int


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """All samples, as rows in order of (dataset, shard, key). The arrays may be maps of a file."""

    digest: str
    starts: tuple[int, ...]  # rows of dataset d are range(starts[d], starts[d + 1])
    strata: tuple[Stratum, ...]  # in order of dataset, then bucket; none is empty
    members: NDArray[np.int32]  # [N] rows in order of (dataset, bucket, row)
    latent_cells: tuple[tuple[int, int], ...]  # height and width of the latents of each bucket
    sample: NDArray[np.uint64]  # [N] see training.data.randomness.sample_id
    tokens: NDArray[np.uint16]  # [N, V] of each caption variant, 0 where the sample lacks it
    flipped: NDArray[np.int32] | None  # [N] negative where there are no flipped latents; None if there are none at all
    null_tokens: int = 1

    def __len__(self) -> int:
        return len(self.sample)

    def datasets_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The dataset of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def holds(self, stratum: Stratum, row: int) -> bool:
        """Whether `row` is in `stratum`."""
        members = self.members[stratum.first : stratum.first + stratum.size]
        place = int(np.searchsorted(members, row))
        return place < len(members) and int(members[place]) == row


def grouped(bucket: NDArray[np.integer], starts: Sequence[int]) -> tuple[NDArray[np.int32], tuple[Stratum, ...]]:
    """Members and strata of rows whose buckets are `bucket` [N] and whose datasets begin at `starts`."""
    members, strata = np.empty(len(bucket), np.int32), []
    for dataset, (start, stop) in enumerate(pairwise(starts)):
        mine = bucket[start:stop]
        members[start:stop] = np.argsort(mine, kind="stable")
        members[start:stop] += start
        first = start
        for number, size in enumerate(np.bincount(mine).tolist()):
            if size:
                strata.append(Stratum(dataset, number, first, size))
            first += size
    return members, tuple(strata)
