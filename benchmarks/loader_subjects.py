"""Loaders under test for benchmarks.loader_correctness: one way to start each of them as a rank of a world.

Ranks are played one after the other in this process, by the environment variables that torchrun sets, and for litdata
by what it asks of torch.distributed. Every sample carries its number, so batches are compared as lists of numbers.
"""

import os
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from benchmarks.loader_data import SHARD, Corpus, write_data_sets
from benchmarks.loader_peers import Mosaic
from training.data.manifest import Manifest, open_mixture
from training.data.mixture import Share as Portion
from training.data.mixture import Source
from training.data.plan import Plan
from training.data.policy import Policy
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.randomness import sample_id
from training.data.reader import Reader

PLAIN: Final = "plain"  # one data set, shuffled
BUCKETS: Final = "buckets"  # a batch holds samples of one of three buckets
MIXTURE: Final = "mixture"  # a second data set, each of whose samples is used twice an epoch
BOTH: Final = "both"  # the mixture, and a batch holds samples of one bucket
_BUFFER: Final = 100


@dataclass(frozen=True, slots=True)
class Job:
    """What a rank is asked to do. `micro_batch` is the number of samples of a micro-step on one rank."""

    kind: str
    rank: int
    world: int
    step_batch: int  # samples of a global batch
    micro_batch: int
    workers: int
    state: Any = None  # where to go on, as `Subject.run` gave it


class CannotExpressError(Exception):
    """The loader has no way to say this."""


class Subject(ABC):
    """A loader of the samples 0 to N - 1, and of N to M - 1 in the second data set of the mixture."""

    name: str
    package: str

    def __init__(self, samples: Corpus, second: int, folder: Path) -> None:
        self.samples, self.second, self.folder = samples, second, folder

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return find_spec(self.package) is not None

    @property
    def first(self) -> int:
        """Samples of the first data set."""
        return len(self.samples) - self.second

    def numbers(self, kind: str) -> list[int]:
        """The sample of each use that an epoch should hold, in order of number."""
        return sorted([*range(self.first), *[*range(self.first, len(self.samples))] * (2 * (kind in (MIXTURE, BOTH)))])

    @property
    def weights(self) -> list[float]:
        """The share of either data set in the mixture."""
        return [n / (self.first + 2 * self.second) for n in (self.first, 2 * self.second)]

    @abstractmethod
    def write(self) -> None:
        """Write the samples."""

    @abstractmethod
    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """The micro-batches of an epoch as numbers, each with the state after it. May raise `CannotExpressError`."""

    def uses(self, job: Job) -> list[int]:
        """What this rank uses in an epoch, sorted."""
        return sorted(number for numbers, _ in self.run(job) for number in numbers)


@contextmanager
def as_rank(job: Job) -> Iterator[None]:
    """Be a rank: each alone on its node, so that none waits for another."""
    place = {"RANK": job.rank, "WORLD_SIZE": job.world, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    with mock.patch.dict(os.environ, {name: str(value) for name, value in place.items()}):
        yield


class Ours(Subject):
    """latentmill. Buckets, the mixture, two caption variants and dropped captions are on in all but `plain`."""

    name, package = "latentmill", "torch"

    def write(self) -> None:
        """See `Subject`."""
        for name, part in (("a", slice(0, self.first)), ("b", slice(self.first, None))):
            (self.folder / name).mkdir()
            write_data_sets(self.samples, self.folder / name, range(len(self.samples))[part])
        (self.folder / "variant").mkdir()
        write_data_sets(self.samples, self.folder / "variant", range(self.first))

    @cached_property
    def _manifests(self) -> dict[str, Manifest]:
        def source(name: str, *text: str) -> Source:
            return Source(name, str(self.folder / name / "latents"), tuple(str(self.folder / t / "text") for t in text))

        mixture = open_mixture([source("a", "a", "variant"), source("b", "b")])
        return {
            PLAIN: open_mixture([source("a", "a")]),
            BUCKETS: open_mixture([source("a", "a", "variant")]),
            MIXTURE: mixture,
            BOTH: mixture,
        }

    def plan(self, kind: str, global_batch: int) -> Plan:
        """The plan of a kind."""
        first, second = Portion("a", 1.0, (1.0, 0.5)), Portion("b", 2.0)
        shares = (Portion(),) if kind == PLAIN else (first,) if kind == BUCKETS else (first, second)
        drop = 0.0 if kind == PLAIN else 0.1
        return Plan(self._manifests[kind].population(), 0, Policy(global_batch, caption_drop=drop, datasets=shares))

    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """See `Subject`. The state is the step, whatever the rank; a state within a step is none."""
        accumulation = job.step_batch // (job.world * job.micro_batch)
        plan = self.plan(job.kind, job.step_batch)
        for number, batch in enumerate(self._read(job, plan, range(job.state or 0, plan.steps_before(1))), 1):
            yield [self._number[sample] for sample in batch.samples.tolist()], (job.state or 0) + number // accumulation

    def uses(self, job: Job) -> list[int]:
        """See `Subject`. Leftovers are carried into the next epoch, so passes are told apart by visits."""
        plan, passes = self.plan(job.kind, job.step_batch), (1, 2)
        seen: Counter[tuple[int, int]] = Counter()
        for batch in self._read(job, plan, range(plan.steps_before(2))):
            for sample, visit in zip(batch.samples.tolist(), batch.visits.tolist(), strict=True):
                number = self._number[sample]
                if visit < passes[number >= self.first]:
                    seen[number, visit] += 1
        return sorted(number for number, _ in seen.elements())

    def _read(self, job: Job, plan: Plan, steps: range) -> Iterator[Any]:
        manifest = self._manifests[job.kind]
        work = micro_batches(plan, Share(job.rank, job.world, job.micro_batch), steps)
        loader = Prefetcher(manifest, Reader(manifest), work, job.workers, 2, torch.device("cpu"))
        try:
            yield from loader
        finally:
            loader.close()

    @cached_property
    def _number(self) -> dict[int, int]:
        ids = (sample_id(SHARD, f"{i:08d}") for i in range(len(self.samples)))
        signed = (value - (1 << 64) * (value >> 63) for value in ids)
        return {value: number for number, value in enumerate(signed)}


class WebDataset(Subject):
    """Tars split among ranks and workers; nothing to go on from, no buckets."""

    name = package = "webdataset"

    def write(self) -> None:
        """See `Subject`."""
        import webdataset

        for name, numbers in (("a", range(self.first)), ("b", range(self.first, len(self.samples)))):
            (self.folder / name).mkdir()
            pattern = str(self.folder / name / "%05d.tar")
            with webdataset.ShardWriter(pattern, maxcount=len(numbers) // 24, verbose=0) as sink:
                for i in numbers:
                    sink.write({"__key__": f"{i:08d}", "latent.npy": self.samples.latent(i)})

    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """See `Subject`."""
        import webdataset

        if job.kind in (BUCKETS, BOTH) or job.state is not None:
            raise CannotExpressError

        def read(name: str) -> Any:
            shards = sorted(map(str, (self.folder / name).glob("*.tar")))
            options = {"nodesplitter": webdataset.split_by_node, "workersplitter": webdataset.split_by_worker}
            source = webdataset.WebDataset(shards, shardshuffle=100, seed=0, empty_check=False, **options)
            return source.shuffle(_BUFFER, seed=0)

        dataset = read("a")
        if job.kind == MIXTURE:
            names, weights = ("a", "b", "b"), (self.first, self.second, self.second)
            dataset = webdataset.RandomMix([read(name) for name in names], weights, longest=True)
        random.seed(0)  # RandomMix draws from it
        torch.manual_seed(0)  # workers are seeded from it
        for rows in DataLoader(dataset, job.micro_batch, num_workers=job.workers, collate_fn=list):
            yield [int(row["__key__"]) for row in rows], None


class Streaming(Subject):
    """MDS with streams: one a bucket and batches `per_stream`, or one repeated. Canonical nodes are fixed at 24."""

    name, package = "mosaicml-streaming", "streaming"

    @property
    def available(self) -> bool:
        """See `Subject`."""
        return Mosaic(self.samples, self.folder, 1).available

    def write(self) -> None:
        """See `Subject`."""
        from streaming import MDSWriter

        parts: dict[str, list[int]] = {}
        for i in range(len(self.samples)):
            name = "ab"[i >= self.first]
            for part in (name, f"{name}-{self.samples.buckets.index(self.samples.bucket(i))}"):
                parts.setdefault(part, []).append(i)
        for name, numbers in parts.items():
            with MDSWriter(out=str(self.folder / name), columns={"i": "int"}, size_limit=1 << 10) as sink:
                for i in numbers:
                    sink.write({"i": i})

    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """See `Subject`. Micro-steps are slices of a device's batch, as Composer takes them."""
        from streaming.base.util import clean_stale_shared_memory

        # It would start torch.distributed in every process of a world of several.
        with (
            mock.patch("streaming.base.dataset.maybe_init_dist", return_value=False),
            mock.patch("streaming.base.util.maybe_init_dist", return_value=False),
        ):
            clean_stale_shared_memory()
            loader = self._loader(job)
        if job.state is not None:
            loader.load_state_dict(job.state)
        for numbers in loader:
            state = loader.state_dict()
            for start in range(0, len(numbers), job.micro_batch):
                yield numbers[start : start + job.micro_batch].tolist(), state

    def _loader(self, job: Job) -> Any:
        from streaming import Stream, StreamingDataLoader, StreamingDataset

        repeats = {"a": 1} if job.kind in (PLAIN, BUCKETS) else {"a": 1, "b": 2}
        if job.kind in (BUCKETS, BOTH):
            repeats = {f"{name}-{k}": repeat for name, repeat in repeats.items() for k in range(3)}
        device_batch = job.step_batch // job.world
        dataset = StreamingDataset(
            streams=[Stream(local=str(self.folder / name), repeat=repeat) for name, repeat in repeats.items()],
            batching_method="per_stream" if job.kind in (BUCKETS, BOTH) else "random",
            batch_size=device_batch,
            num_canonical_nodes=24,
            shuffle=True,
            shuffle_seed=0,
        )
        return StreamingDataLoader(
            dataset, batch_size=device_batch, num_workers=job.workers, collate_fn=_numbers, drop_last=False
        )


class Lightning(Subject):
    """litdata's chunks; a mixture is a CombinedStreamingDataset by weights, there are no buckets."""

    name = package = "litdata"

    def write(self) -> None:
        """See `Subject`."""
        from litdata.streaming import Cache

        for name, numbers in (("a", range(self.first)), ("b", range(self.first, len(self.samples)))):
            cache = Cache(str(self.folder / name), chunk_size=len(numbers) // 24)
            for at, i in enumerate(numbers):
                cache._add_item(at, {"i": i})
            cache.done()
            cache.merge()

    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """See `Subject`. Micro-steps are slices of a device's batch."""
        import litdata
        from litdata.utilities.env import _DistributedEnv

        if job.kind in (BUCKETS, BOTH):
            raise CannotExpressError
        place = _DistributedEnv(job.world, job.rank, num_nodes=1)
        with mock.patch.object(_DistributedEnv, "detect", return_value=place):
            names = ("a",) if job.kind == PLAIN else ("a", "b")
            options = {"shuffle": True, "seed": 0, "num_canonical_nodes": 24}
            parts = [litdata.StreamingDataset(str(self.folder / name), **options) for name in names]
            mixed = parts[0]
            if job.kind == MIXTURE:
                mixed = litdata.CombinedStreamingDataset(parts, seed=0, weights=self.weights, iterate_over_all=False)
            loader = litdata.StreamingDataLoader(
                mixed, batch_size=job.step_batch // job.world, num_workers=job.workers, collate_fn=_numbers
            )
            if job.state is not None:
                loader.load_state_dict(job.state)
            for numbers in loader:
                state = loader.state_dict()
                for start in range(0, len(numbers), job.micro_batch):
                    yield numbers[start : start + job.micro_batch].tolist(), state


class HuggingFace(Subject):
    """A streaming dataset: shards split among nodes, a shuffle buffer, interleaving by weights, its own state."""

    name, package = "HF datasets", "datasets"

    def write(self) -> None:
        """See `Subject`. Nothing: the tables are small enough for memory."""

    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """See `Subject`."""
        import datasets
        from datasets.distributed import split_dataset_by_node
        from torchdata.stateful_dataloader import StatefulDataLoader

        if job.kind in (BUCKETS, BOTH):
            raise CannotExpressError

        def read(numbers: range) -> Any:
            table = datasets.Dataset.from_dict({"i": list(numbers)})
            return table.to_iterable_dataset(num_shards=24).shuffle(seed=0, buffer_size=_BUFFER)

        mixed = read(range(self.first))
        if job.kind == MIXTURE:
            mixed = datasets.interleave_datasets(
                [mixed, read(range(self.first, len(self.samples)))],
                probabilities=self.weights,
                seed=0,
                stopping_strategy="all_exhausted",
            )
        mine = split_dataset_by_node(mixed, job.rank, job.world)
        loader = StatefulDataLoader(mine, job.micro_batch, num_workers=job.workers, collate_fn=_numbers)
        if job.state is not None:
            loader.load_state_dict(job.state)
        for numbers in loader:
            yield numbers.tolist(), loader.state_dict()


class Stateful(Subject):
    """torchdata's StatefulDataLoader over a map-style dataset and torch's DistributedSampler."""

    name, package = "torchdata StatefulDataLoader", "torchdata"

    def write(self) -> None:
        """See `Subject`. Nothing: a sample is its number."""

    def run(self, job: Job) -> Iterator[tuple[list[int], Any]]:
        """See `Subject`."""
        from torchdata.stateful_dataloader import StatefulDataLoader

        if job.kind != PLAIN:
            raise CannotExpressError
        dataset = _Numbers(self.first)
        sampler = DistributedSampler(dataset, job.world, job.rank, shuffle=True, seed=0)
        loader = StatefulDataLoader(
            dataset, job.micro_batch, sampler=sampler, num_workers=job.workers, collate_fn=_numbers
        )
        if job.state is not None:
            loader.load_state_dict(job.state)
        for numbers in loader:
            yield numbers.tolist(), loader.state_dict()


class _Numbers(Dataset[dict[str, int]]):
    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> dict[str, int]:
        return {"i": i}


def _numbers(rows: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor([int(row["i"]) for row in rows])


SUBJECTS: Final[tuple[type[Subject], ...]] = (Ours, WebDataset, Streaming, Lightning, HuggingFace, Stateful)
