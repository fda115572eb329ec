"""The plan: which samples form which global batch. A pure function of (manifest, seed, epoch, policy).

Each bucket is an endless stream: its samples in a new random order each epoch, one order after the other. Every G
samples of the stream form a global batch, where G is the global batch size; so a bucket of n samples has finished
floor(e n / G) batches by the end of its e-th epoch, and the (e n) mod G samples left over are not dropped but lead the
stream of the next. Epoch e holds the batches finished in it, of all buckets, in random order. After E epochs each
sample has thus been used E times, but for the last (E n) mod G places of its bucket's stream, which are still to come.

All is arithmetic: any step of any epoch is found without walking there, so a run resumes in the time it takes to
shuffle one epoch. The state of a run is `PlanState`, which names no rank: ranks and micro-steps take slices of a global
batch (`rank_slice`), so neither world size nor accumulation changes what is in it.

A batch that lies across two epochs may hold a sample twice. `visits` tells its uses apart, also for randomness.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from training.data.randomness import permutation

PLAN_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """How samples are put together. `global_batch` is the number of samples a step, over all ranks."""

    global_batch: int


@dataclass(frozen=True, slots=True)
class PlanState:
    """Where a run stands in its plan: the step that comes next. This is all it takes to go on."""

    manifest_digest: str
    seed: int
    global_batch: int
    step: int
    plan_version: int = PLAN_VERSION

    @property
    def images_seen(self) -> int:
        """Samples consumed so far: the run's one clock."""
        return self.step * self.global_batch


@dataclass(frozen=True, slots=True, eq=False)
class GlobalBatch:
    """The samples of one step, all of one bucket."""

    bucket: int
    rows: NDArray[np.int64]  # [G] rows of the manifest
    visits: NDArray[np.int64]  # [G] how often the plan has used the sample before


@dataclass(frozen=True, slots=True, eq=False)
class EpochPlan:
    """The global batches of one epoch in order, as names: the `index`-th batch of the stream of `bucket`."""

    bucket: NDArray[np.int64]  # [S]
    index: NDArray[np.int64]  # [S]


def plan(sizes: Sequence[int], manifest_digest: str, seed: int, epoch: int, policy: Policy) -> EpochPlan:
    """The batches of epoch `epoch` over buckets of `sizes` samples. Pure: same arguments, same plan, anywhere."""
    bounds = [
        (epoch * size // policy.global_batch, (epoch + 1) * size // policy.global_batch) for size in map(int, sizes)
    ]
    bucket = np.concatenate([np.full(stop - start, b, np.int64) for b, (start, stop) in enumerate(bounds)])
    index = np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in bounds])
    order = permutation(f"batches:{manifest_digest}:{seed}:{epoch}", len(bucket))
    return EpochPlan(bucket[order], index[order])


def rank_slice(size: int, rank: int, world: int, micro_step: int, accumulation: int) -> slice:
    """The part of a global batch of `size` that `rank` of `world` takes in micro-step `micro_step` of `accumulation`.

    The world * accumulation parts are disjoint, cover the batch, and differ in length by at most one.
    """
    parts, part = world * accumulation, micro_step * world + rank
    return slice(part * size // parts, (part + 1) * size // parts)


def accumulation_of(global_batch: int, micro_batch: int, world: int) -> int:
    """The micro-steps it takes for `world` ranks with at most `micro_batch` samples each to do a global batch.

    Raises `UserError` if some rank would go without a sample.
    """
    accumulation = -(-global_batch // (world * micro_batch))
    if world * accumulation > global_batch:
        raise UserError(
            f"--global-batch {global_batch} does not give each of {world} ranks a sample in each of {accumulation} "
            f"micro-steps. Use a larger global or micro batch, or fewer ranks."
        )
    return accumulation


class Plan:
    """The plan of a whole run over the samples whose bucket ids are `buckets` [N]; batches are found by step."""

    def __init__(self, buckets: NDArray[np.int32], manifest_digest: str, seed: int, policy: Policy) -> None:
        counts = np.bincount(buckets)
        self._members = np.split(np.argsort(buckets, kind="stable"), np.cumsum(counts)[:-1])
        self._sizes = [int(count) for count in counts]
        self._digest, self._seed, self._policy = manifest_digest, seed, policy
        self._epoch = -1
        self._epoch_plan = EpochPlan(np.empty(0, np.int64), np.empty(0, np.int64))
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    def state(self, step: int) -> PlanState:
        """The state of a run that has consumed the batches before `step`."""
        return PlanState(self._digest, self._seed, self._policy.global_batch, step)

    def steps_before(self, epoch: int) -> int:
        """Global batches in the epochs before `epoch`."""
        return sum(epoch * size // self._policy.global_batch for size in self._sizes)

    def epoch_of(self, step: int) -> int:
        """The epoch that `step` belongs to."""
        most = (step + 1 + len(self._sizes)) * self._policy.global_batch // sum(self._sizes) + 1
        return bisect.bisect_right(range(most + 1), step, key=self.steps_before) - 1

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of `step`. Cheap while steps stay within an epoch; one shuffle where they enter another."""
        epoch = self.epoch_of(step)
        if epoch != self._epoch:
            self._epoch = epoch
            self._epoch_plan = plan(self._sizes, self._digest, self._seed, epoch, self._policy)
            self._orders = {name: order for name, order in self._orders.items() if name[1] >= epoch - 1}
        place = step - self.steps_before(epoch)
        return self._read(int(self._epoch_plan.bucket[place]), int(self._epoch_plan.index[place]))

    def _read(self, bucket: int, index: int) -> GlobalBatch:
        size = self._sizes[bucket]
        places = np.arange(index * self._policy.global_batch, (index + 1) * self._policy.global_batch)
        visits, within = places // size, places % size
        rows = np.empty_like(places)
        for visit in np.unique(visits):
            chosen = visits == visit
            rows[chosen] = self._members[bucket][self._order(bucket, int(visit))[within[chosen]]]
        return GlobalBatch(bucket, rows, visits)

    def _order(self, bucket: int, epoch: int) -> NDArray[np.int64]:
        name = bucket, epoch
        if name not in self._orders:
            self._orders[name] = permutation(
                f"samples:{self._digest}:{self._seed}:{epoch}:{bucket}", self._sizes[bucket]
            )
        return self._orders[name]
