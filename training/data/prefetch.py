"""Batches ahead of the training loop: bounded, in order, and without any say in where the run stands."""

import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from training.data.collate import Draft, Features
from training.data.manifest import Manifest
from training.data.plan import GlobalBatch, Plan, accumulation_of, rank_slice
from training.data.reader import Fault, Reader
from training.data.slot import Slot

_PART: Final = 8  # samples that are worth handing to another thread


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank takes of each global batch: in as many micro-steps as it takes with `micro_batch` samples each."""

    rank: int
    world: int
    micro_batch: int


def micro_batches(plan: Plan, share: Share, steps: range) -> Iterator[GlobalBatch]:
    """The part of each micro-step of `steps` that this rank takes, in order."""
    for step in steps:
        batch = plan.batch(step)
        micro_steps = accumulation_of(len(batch), share.micro_batch, share.world)
        for micro_step in range(micro_steps):
            yield batch.part(rank_slice(len(batch), share.rank, share.world, micro_step, micro_steps))


class Prefetcher:
    """Iterates over batches on `device`, up to `depth` whole ones ahead, read by `threads` threads.

    A batch may be used until the next is asked for: its memory is then used again. With 0 threads each is read when
    it is asked for. The run's position is the trainer's: it advances when a step is done, not when its batch was read.
    What was read ahead and not used is simply read again after a resume.
    """

    def __init__(
        self,
        manifest: Manifest,
        reader: Reader,
        work: Iterator[GlobalBatch],
        threads: int,
        depth: int,
        device: torch.device,
    ) -> None:
        self._manifest, self._reader, self._work, self._device = manifest, reader, work, device
        self._threads, self._depth = threads, depth
        self._readers = ThreadPoolExecutor(threads, "reader") if threads else None
        self._builders = ThreadPoolExecutor(depth, "collate")
        self._ahead: deque[Future[tuple[Features, Slot]]] = deque()
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for _ in range(depth + 1 if threads else 1):  # those being built, and the one that is being used
            self._slots.put(Slot(pin=device.type == "cuda"))
        # torch gives the constructor no types
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[Features]:
        if self._readers is None:
            for uses in self._work:
                features, slot = self._build(uses)
                yield self._handed_over(features)
                self._slots.put(slot)
            return
        self._refill()
        while self._ahead:
            features, slot = self._ahead.popleft().result()
            self._refill()
            yield self._handed_over(features)
            self._slots.put(slot)

    def close(self) -> None:
        """Stop reading and close the files; batches on their way are finished and thrown away."""
        self._builders.shutdown(wait=True, cancel_futures=True)
        if self._readers is not None:
            self._readers.shutdown(wait=True)
        self._reader.close()

    def _refill(self) -> None:
        for uses in islice(self._work, self._depth - len(self._ahead)):
            self._ahead.append(self._builders.submit(self._build, uses))

    def _build(self, uses: GlobalBatch) -> tuple[Features, Slot]:
        slot = self._slots.get()
        draft = Draft(self._manifest, self._reader, slot, uses)
        in_turn: Callable[..., Iterator[list[Fault]]] = self._readers.map if self._readers is not None else map
        faults = [fault for found in in_turn(draft.read, draft.parts(self._parts(len(uses)))) for fault in found]
        if self._side is None:
            return draft.finish(faults, self._device), slot
        with torch.cuda.stream(self._side):
            features = draft.finish(faults, self._device)
        # The slot is read until here; the wait is this thread's alone.
        self._side.synchronize()
        return features, slot

    def _parts(self, samples: int) -> int:
        return max(1, min(self._threads, samples // _PART))

    def _handed_over(self, features: Features) -> Features:
        """Tell the allocator that the stream of the training loop uses what was made on the side stream."""
        if self._side is not None:
            for field in fields(features):
                value = getattr(features, field.name)
                if isinstance(value, Tensor):
                    value.record_stream(torch.cuda.current_stream(self._device))
        return features
