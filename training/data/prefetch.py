"""Batches ahead of the training loop: bounded, in order, and without any say in where the run stands."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

from training.data.collate import Batch, Sample, Sampler, collate
from training.data.plan import Plan, rank_slice

_CHUNK: Final = 4  # samples a task: reading one may cost less than handing it over


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank takes of each global batch, and in how many micro-steps."""

    rank: int
    world: int
    accumulation: int


Uses = list[tuple[int, int]]  # (row of the manifest, visit)


def micro_batches(plan: Plan, share: Share, steps: range) -> Iterator[Uses]:
    """The samples of each micro-step of `steps` in order, as this rank takes them."""
    for step in steps:
        batch = plan.batch(step)
        for micro_step in range(share.accumulation):
            part = rank_slice(len(batch.rows), share.rank, share.world, micro_step, share.accumulation)
            yield list(zip(batch.rows[part].tolist(), batch.visits[part].tolist(), strict=True))


class Prefetcher:
    """Iterates over collated batches, up to `depth` whole ones ahead, read by `threads` threads.

    The run's position is the trainer's: it advances when a step is done, not when its batch was read. What was read
    ahead and not used is simply read again after a resume.
    """

    def __init__(self, sampler: Sampler, work: Iterator[Uses], threads: int, depth: int, pin: bool) -> None:
        self._sampler, self._work, self._pin = sampler, work, pin
        self._readers = ThreadPoolExecutor(threads, "reader")
        self._builders = ThreadPoolExecutor(depth, "collate")
        self._ahead: deque[Future[Batch]] = deque()
        self._depth = depth

    def __iter__(self) -> Iterator[Batch]:
        self._refill()
        while self._ahead:
            batch = self._ahead.popleft().result()
            self._refill()
            yield batch

    def close(self) -> None:
        """Stop reading and close the files; batches on their way are finished and thrown away."""
        self._builders.shutdown(wait=True, cancel_futures=True)
        self._readers.shutdown(wait=True)
        self._sampler.reader.close()

    def _refill(self) -> None:
        for uses in islice(self._work, self._depth - len(self._ahead)):
            self._ahead.append(self._builders.submit(self._build, uses))

    def _build(self, uses: Uses) -> Batch:
        chunks = [uses[i : i + _CHUNK] for i in range(0, len(uses), _CHUNK)]
        return collate([sample for part in self._readers.map(self._read, chunks) for sample in part], self._pin)

    def _read(self, uses: Uses) -> list[Sample]:
        return [self._sampler.sample(row, visit) for row, visit in uses]
