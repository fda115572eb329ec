"""The plan: which samples form which global batch. A pure function of (manifest, seed, epoch, policy).

A stratum is what one dataset has in one bucket. It is an endless stream: its samples in a new random order, one pass
after the other (`streams`). An epoch takes weight × size places from it, and is cut into blocks that each take the same
share of every stream, so that proportions hold all along (`clock`). Within a block the uses of a bucket, of all
datasets, are shuffled; put behind each other they are the stream of the bucket, and are cut into global batches, by
number of samples or by tokens (`measure`). What is left of a bucket at the end of a block or an epoch is not dropped
but leads its next batch. A batch belongs to the block in which its limit is reached, and the batches of a block come in
random order.

Any step is found without walking there: everything before it is arithmetic, and orders are bijections that give any
place on its own. So a run resumes in the time it takes to form one block, plus one look at an epoch's tokens where
batches are limited by tokens. The state of a run is `PlanState`, which names no rank: ranks and micro-steps take slices
of a global batch (`rank_slice`), so neither world size nor accumulation changes what is in it.

A batch that lies across two passes may hold a sample twice. `visits` tells its uses apart, also for randomness.
"""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from training.data.bijection import Bijection
from training.data.choices import Chooser
from training.data.clock import Clock
from training.data.measure import Measure, Samples, Tokens
from training.data.policy import Policy
from training.data.population import Population
from training.data.streams import Streams

PLAN_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class PlanState:
    """Where a run stands in its plan: the step that comes next. This is all it takes to go on."""

    manifest_digest: str
    policy_digest: str
    seed: int
    step: int
    images_seen: int  # samples consumed so far: the run's one clock
    plan_version: int = PLAN_VERSION


@dataclass(frozen=True, slots=True, eq=False)
class GlobalBatch:
    """The samples of one step, or of a part of it, all of one bucket. Arrays are [G]."""

    bucket: int
    rows: NDArray[np.int64]  # rows of the manifest
    visits: NDArray[np.int64]  # how often the plan has used the sample before
    samples: NDArray[np.uint64]  # ids of the samples
    variants: NDArray[np.int8]  # which caption variant; -1 where the caption is dropped
    flipped: NDArray[np.bool_]  # whether the flipped latents are used
    whole: int  # samples of the global batch that this is, or is a part of

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, where: slice) -> "GlobalBatch":
        """The samples at `where`."""
        return GlobalBatch(
            self.bucket,
            self.rows[where],
            self.visits[where],
            self.samples[where],
            self.variants[where],
            self.flipped[where],
            self.whole,
        )


def plan(population: Population, seed: int, epoch: int, policy: Policy) -> Iterator[GlobalBatch]:
    """The global batches of epoch `epoch` in order. Pure: same arguments, same plan, anywhere."""
    whole = Plan(population, seed, policy)
    for step in range(whole.steps_before(epoch), whole.steps_before(epoch + 1)):
        yield whole.batch(step)


def rank_slice(size: int, rank: int, world: int, micro_step: int, accumulation: int) -> slice:
    """The part of a global batch of `size` that `rank` of `world` takes in micro-step `micro_step` of `accumulation`.

    The world * accumulation parts are disjoint, cover the batch, and differ in length by at most one.
    """
    parts, part = world * accumulation, micro_step * world + rank
    return slice(part * size // parts, (part + 1) * size // parts)


def accumulation_of(size: int, micro_batch: int, world: int) -> int:
    """The micro-steps it takes for `world` ranks with at most `micro_batch` samples each to do a batch of `size`.

    Raises `UserError` if some rank would go without a sample.
    """
    accumulation = -(-size // (world * micro_batch))
    if world * accumulation > size:
        raise UserError(
            f"a global batch of {size} does not give each of {world} ranks a sample in each of {accumulation} "
            f"micro-steps. Use a larger global or micro batch, or fewer ranks."
        )
    return accumulation


def require_shares(plan: "Plan", micro_batch: int, world: int) -> None:
    """Raise `UserError` unless every batch of `plan` gives each of `world` ranks a sample in each micro-step."""
    least, most = plan.sizes()
    if least == most:
        accumulation_of(least, micro_batch, world)
    elif least < world or (micro_batch < 2 and world > 1):
        raise UserError(
            f"--tokens-per-batch {plan.policy.tokens_per_batch} makes batches of {least} to {most} samples, too few "
            f"for {world} ranks with --micro-batch {micro_batch}. Use more tokens, a micro batch of at least 2, or "
            f"fewer ranks."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Uses:
    """The uses of one bucket in one block, in order, and what was weighed before each of them."""

    rows: NDArray[np.int64]
    visits: NDArray[np.int64]
    before: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Block:
    """The batches that are completed in a block: of each bucket from which index on, and how many."""

    number: int
    step: int  # its first
    firsts: tuple[int, ...]
    counts: tuple[int, ...]


class Plan:
    """The plan of a whole run over `population`; batches are found by step."""

    def __init__(self, population: Population, seed: int, policy: Policy) -> None:
        self.policy = policy
        self._population, self._seed = population, seed
        self._name = f"{population.digest}:{seed}"
        self._streams = Streams(population, seed, policy.shuffle_window)
        self._clock = Clock(population, policy)
        self._measure: Measure = (
            Tokens(population, self._streams, self._clock, policy)
            if policy.tokens_per_batch
            else Samples(self._clock, policy.global_batch)
        )
        self._chooser = Chooser(population, seed, policy)
        self._buckets = tuple(self._clock.strata)
        self._finished = lru_cache(maxsize=64)(self._count_finished)
        self._uses = lru_cache(maxsize=4 * len(self._buckets))(self._read_block)
        self._block = _Block(-1, -1, (), ())

    @property
    def blocks(self) -> int:
        """Blocks an epoch."""
        return self._clock.blocks

    def state(self, step: int, images_seen: int) -> PlanState:
        """The state of a run that has consumed the batches before `step`, with `images_seen` samples."""
        return PlanState(self._population.digest, self.policy.digest, self._seed, step, images_seen)

    def sizes(self) -> tuple[int, int]:
        """The least and the most samples that a batch can have."""
        least, most = zip(*map(self._measure.sizes, self._buckets), strict=True)
        return min(least), max(most)

    def steps_before(self, epoch: int) -> int:
        """Global batches in the epochs before `epoch`."""
        return sum(self._finished(epoch * self.blocks))

    def epoch_of(self, step: int) -> int:
        """The epoch that `step` belongs to."""
        measure = self._measure
        epoch = int(step / sum(measure.an_epoch(b) / measure.limit(b) for b in self._buckets))
        while self.steps_before(epoch) > step:
            epoch -= 1
        while self.steps_before(epoch + 1) <= step:
            epoch += 1
        return epoch

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of `step`. Cheap while steps stay within a block."""
        block = self._find_block(step)
        place = int(self._order(block)(np.array([step - block.step]))[0])
        ends = list(accumulate(block.counts))
        which = bisect.bisect_right(ends, place)
        index = block.firsts[which] + place - (ends[which] - block.counts[which])
        return self._form(self._buckets[which], index, block.number)

    def find(self, row: int, epoch: int) -> list[int]:
        """The steps that take the uses of `row` that `epoch` draws; what is carried over comes in a later epoch."""
        bucket = next(s.bucket for s in self._population.strata if self._population.holds(s, row))
        blocks = range(epoch * self.blocks, (epoch + 1) * self.blocks)
        uses = (self._uses(bucket, block) for block in blocks)
        places = [before for block in uses for before in block.before[block.rows == row].tolist()]
        return sorted({self._step_of(bucket, place // self._measure.limit(bucket), epoch) for place in places})

    def _step_of(self, bucket: int, index: int, epoch: int) -> int:
        """The step of batch number `index` of `bucket`, which is not complete before `epoch`."""
        number = self._buckets.index(bucket)
        while self._finished((epoch + 1) * self.blocks)[number] <= index:
            epoch += 1
        span = range(epoch * self.blocks, (epoch + 1) * self.blocks)
        block = self._block_at(span[bisect.bisect_right(span, index, key=lambda b: self._finished(b)[number]) - 1])
        place = sum(block.counts[:number]) + index - block.firsts[number]
        return block.step + int(np.flatnonzero(self._order(block)(np.arange(sum(block.counts))) == place)[0])

    def _find_block(self, step: int) -> _Block:
        if not self._block.step <= step < self._block.step + sum(self._block.counts):
            epoch = self.epoch_of(step)
            span = range(epoch * self.blocks, (epoch + 1) * self.blocks)
            number = span[bisect.bisect_right(span, step, key=lambda block: sum(self._finished(block))) - 1]
            self._block = self._block_at(number)
        return self._block

    def _block_at(self, number: int) -> _Block:
        firsts, ends = self._finished(number), self._finished(number + 1)
        return _Block(number, sum(firsts), firsts, tuple(end - first for first, end in zip(firsts, ends, strict=True)))

    def _order(self, block: _Block) -> Bijection:
        return Bijection(f"batches:{self._name}:{block.number}", sum(block.counts))

    def _count_finished(self, block: int) -> tuple[int, ...]:
        """How many batches of each bucket are complete before `block`."""
        return tuple(self._measure.before(b, block) // self._measure.limit(b) for b in self._buckets)

    def _form(self, bucket: int, index: int, block: int) -> GlobalBatch:
        """Batch number `index` of `bucket`, which is completed in `block`."""
        limit = self._measure.limit(bucket)
        parts: list[_Uses] = []
        while True:
            uses = self._uses(bucket, block)
            low, high = np.searchsorted(uses.before, (index * limit, (index + 1) * limit))
            parts.append(_Uses(uses.rows[low:high], uses.visits[low:high], uses.before[low:high]))
            if self._measure.before(bucket, block) <= index * limit:
                break
            block -= 1
        rows = np.concatenate([part.rows for part in reversed(parts)])
        visits = np.concatenate([part.visits for part in reversed(parts)])
        chosen = self._chooser.choose(rows, visits)
        return GlobalBatch(bucket, rows, visits, chosen.samples, chosen.variants, chosen.flipped, len(rows))

    def _read_block(self, bucket: int, block: int) -> _Uses:
        """What the streams of all datasets give the bucket in this block, shuffled."""
        strata = self._clock.strata[bucket]
        ranges = [(s, self._clock.uses(s, block), self._clock.uses(s, block + 1)) for s in strata]
        parts = [self._streams.read(*taken) for taken in ranges]
        rows, visits = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        shuffle = Bijection(f"uses:{self._name}:{bucket}:{block}", len(rows))(np.arange(len(rows)))
        rows, visits = rows[shuffle], visits[shuffle]
        weights = self._measure.weigh(bucket, rows)
        before = np.cumsum(weights) - weights + self._measure.before(bucket, block)
        return _Uses(rows, visits, before)
