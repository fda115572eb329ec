"""How fast are batches read? `python -m benchmarks.loader_speed [--samples 1000] [--rounds 5] [--folder DIR]`

Latents of 256 px and ragged T5 text 4,096 wide, collated: latents [B, 2, 4, 32, 32], text padded with zeros to the
longest of the batch, lengths. Against other loaders (benchmarks.loader_peers) and against the limit: the same bytes by
plain `preadv` calls into the memory of batches, nothing checked, padded or parsed. All in turns in one process, each
turn all samples three times (cold: once). A turn's CPU time counts all threads, so samples a CPU second are samples/s
a core; ratios are of turns in the same round.

latentmill holds every sample against its checksum, which no other here does; "unchecked" is without, to compare alike,
and "limit + xxh3" is the limit that does so too. Peers that are not installed are left out. They do not fit into
latentmill's own environment; one for all of this is made by

    python -m venv peers
    peers/bin/pip install 'torch>=2.10' mosaicml-streaming litdata datasets torchdata webdataset xxhash pyarrow psutil
    peers/bin/pip uninstall -y torchvision transformers   # broken beside other versions, and not needed here
    peers/bin/python -m benchmarks.loader_speed             # in the root of the checkout

Page cache: warm, then cold by posix_fadvise(DONTNEED) on each file before each turn, which empties this machine's
cache and not that of the disk behind it. What a loader still has mapped stays cached, and is said.
"""

import argparse
import ctypes
import gc
import mmap
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
import xxhash

from benchmarks.loader_data import Corpus, corpus, data_folder, write_data_sets
from benchmarks.loader_peers import PEERS, Peer, order_of
from training.data.files import Member
from training.data.manifest import Manifest, open_manifest
from training.data.plan import GlobalBatch
from training.data.prefetch import Prefetcher
from training.data.reader import Reader

_CORPORA: Final = {"dense fp16": ("dense", "fp16"), "dense int8": ("dense", "int8"), "alt fp16": ("alt", "fp16")}
_GOALS: Final = {"webdataset": 5.0, "mosaicml-streaming": 3.0, "limit": 0.8}
_SLOTS: Final = 5
_LEFT: Final = 0.02  # of the page cache, where it should be cold
_PACKAGES: Final = (
    "torch",
    "numpy",
    "xxhash",
    "webdataset",
    "mosaicml-streaming",
    "litdata",
    "datasets",
    "pyarrow",
    "torchdata",
)
_OURS: Final = "latentmill"
_LIMIT: Final = "limit"


class Ours(Peer):
    """latentmill's reader and prefetcher; `threads` and `depth` as in `pipelines.train`, the plan's order given."""

    threads, depth, checked = 4, 4, True
    name = home = _OURS

    @cached_property
    def _manifest(self) -> Manifest:
        return open_manifest(str(self.folder / "latents"), str(self.folder / "text"))

    def write(self) -> None:
        """See `Peer`."""
        write_data_sets(self.samples, self.folder)

    def batches(self, order: str, epoch: int) -> Iterator[Any]:
        """See `Peer`."""
        return self.epochs(order, range(epoch, epoch + 1))

    def epochs(self, order: str, epochs: range) -> Iterator[Any]:
        """See `Peer`. One prefetcher reads them all."""
        work = self._uses(np.concatenate([order_of(len(self.samples), order, epoch) for epoch in epochs]))
        cpu = torch.device("cpu")
        loader = Prefetcher(self._manifest, Reader(self._manifest), work, self.threads, self.depth, cpu)
        with ExitStack() as stack:
            stack.callback(loader.close)
            if not self.checked:
                stack.enter_context(mock.patch("training.data.reader._intact", _trusted))
            # Packed tokens are handed over as they are, as the peers do; decoding is the device's work.
            stack.enter_context(mock.patch("training.data.text_form.TextForm.decode", lambda form, stored: stored))
            for features in loader:
                yield features.posterior, features.text, features.text_lengths

    def _uses(self, rows: Any) -> Iterator[GlobalBatch]:
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            none, count = np.zeros(len(part), np.int8), len(part)
            yield GlobalBatch(0, part, none.astype(np.int64), self._manifest.sample[part], none, none > 0, count)


class OursUnchecked(Ours):
    """Without checksums."""

    name, checked = "latentmill, unchecked", False


class OursAlone(Ours):
    """Without threads: what one core does when it does nothing else."""

    name, threads = "latentmill, 0 threads", 0


class Limit(Ours):
    """`preadv` of every member into the memory of a batch, one after the other."""

    name = _LIMIT

    def epochs(self, order: str, epochs: range) -> Iterator[Any]:
        """See `Peer`. The memory is as much as a prefetcher of the same depth goes round in."""
        rows = np.concatenate([order_of(len(self.samples), order, epoch) for epoch in epochs])
        features = [(places, [os.open(p, os.O_RDONLY) for p in places.paths]) for places in self._features()]
        most = max(sum(int(p.bytes[part].sum()) for p, _ in features) for part in self._split(rows))
        slots = [memoryview(bytearray(most)) for _ in range(_SLOTS)]
        try:
            for number, part in enumerate(self._split(rows)):
                slot, start, lengths = slots[number % _SLOTS], 0, self._manifest.tokens[part, 0].astype(np.int64)
                for places, files in features:
                    columns = (places.file, places.offset, places.bytes, places.xxh3)
                    for file, offset, size, digest in zip(*(c[part].tolist() for c in columns), strict=True):
                        body = slot[start : start + size]
                        os.preadv(files[file], (body,), offset)
                        self.look(body, digest)
                        start += size
                yield slot, slot, torch.from_numpy(lengths)
        finally:
            for _, files in features:
                for descriptor in files:
                    os.close(descriptor)

    def look(self, body: memoryview, digest: int) -> None:
        """What is done with the bytes of a member: nothing."""

    def _features(self) -> tuple[Any, Any]:
        return self._manifest.latents, self._manifest.text[0]

    def _split(self, rows: Any) -> list[Any]:
        return [rows[start : start + self.batch] for start in range(0, len(rows), self.batch)]


class LimitChecked(Limit):
    """The same with the checksum of each."""

    name = "limit + xxh3"

    def look(self, body: memoryview, digest: int) -> None:
        """Compare the checksum."""
        if xxhash.xxh3_64_intdigest(body) != digest:
            raise SystemExit("damaged")


def _trusted(member: Member) -> bool:
    """In place of the checksum."""
    return True


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds that one pass over all samples took."""

    cpu: float
    wall: float


def main() -> None:
    """Write, measure, print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--samples", type=int, default=1000)
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--passes", type=int, default=3, help="times that a warm turn reads all samples")
    command.add_argument("--batch", type=int, default=32)
    command.add_argument("--corpora", nargs="+", choices=_CORPORA, default=list(_CORPORA))
    command.add_argument("--only", nargs="+", default=[], help="loaders by name; the limit is always measured")
    command.add_argument("--folder", type=Path, help="where data is written and removed again (default: temporary)")
    options = command.parse_args()
    torch.set_num_threads(1)
    _say_where()
    for name in options.corpora:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _measure(name, corpus(options.samples, *_CORPORA[name], data_folder()), Path(folder), options)


def _measure(name: str, samples: Corpus, folder: Path, options: argparse.Namespace) -> None:
    print(
        f"\n## {name}: {len(samples):,} samples, {samples.tokens.mean():.1f} tokens, {samples.bytes / 1e6:,.0f} MB, "
        f"batches of {options.batch}"
    )
    loaders = _written(samples, folder, options)
    for order in ("random", "windowed"):
        for cold in (False, True):
            chosen = [loader for loader in loaders if order in loader.orders]
            rounds, passes = (max(1, options.rounds // 2), 1) if cold else (options.rounds, options.passes)
            turns: dict[str, list[Turn]] = {loader.name: [] for loader in chosen}
            for number in range(rounds if cold else rounds + 1):
                for loader in chosen:
                    turn = _turn(loader, order, range(number * passes, (number + 1) * passes), cold)
                    if cold or number:  # the first warm round fills the cache
                        turns[loader.name].append(turn)
            _report(f"{order} order, page cache {'cold' if cold else 'warm'}", samples, turns)


def _written(samples: Corpus, folder: Path, options: argparse.Namespace) -> list[Peer]:
    loaders = []
    for kind in (Limit, LimitChecked, Ours, OursUnchecked, OursAlone, *PEERS):
        loader: Peer = kind(samples, folder / kind.home, options.batch)
        if options.only and kind is not Limit and loader.name not in options.only:
            continue
        if not loader.available:
            print(f"{loader.name}: left out, {loader.package} is not installed")
            continue
        if not loader.folder.exists():
            loader.folder.mkdir()
            loader.write()
        loaders.append(loader)
    return loaders


def _turn(loader: Peer, order: str, epochs: range, cold: bool) -> Turn:
    if cold and (left := _evict(loader.folder)) > _LEFT:
        print(f"  {loader.name}: {left:.0%} of its files stayed in the page cache")
    wall, cpu, count, tokens = time.perf_counter(), time.process_time(), 0, 0
    for _, _, lengths in loader.epochs(order, epochs):
        count += len(lengths)
        tokens += int(lengths.sum())
    turn = Turn((time.process_time() - cpu) / len(epochs), (time.perf_counter() - wall) / len(epochs))
    if (count, tokens) != (len(epochs) * len(loader.samples), len(epochs) * int(loader.samples.tokens.sum())):
        print(f"  {loader.name}: {count:,} samples and {tokens:,} tokens instead of all")
    return turn


def _evict(folder: Path) -> float:
    """Empty the page cache of the files in `folder`; the share of their pages that is in it all the same."""
    gc.collect()  # what a loader has mapped cannot be evicted
    found: list[int] = []
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found.append(_cached_pages(file.fileno()))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(found) * mmap.PAGESIZE / size


def _cached_pages(descriptor: int) -> int:
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
        content = np.frombuffer(mapped, np.uint8)
        pages = (ctypes.c_ubyte * -(-len(content) // mmap.PAGESIZE))()
        address, length = ctypes.c_void_p(content.ctypes.data), ctypes.c_size_t(len(content))
        if ctypes.CDLL(None, use_errno=True).mincore(address, length, pages):
            raise OSError(ctypes.get_errno(), "mincore")
        del content
    return sum(page & 1 for page in pages)


def _report(title: str, samples: Corpus, turns: dict[str, list[Turn]]) -> None:
    """Medians, and of each ratio the median over rounds of ours to theirs in the same round."""
    print(f"\n{title}, {len(turns[_LIMIT])} rounds")
    print(f"{'':30}{'samples/s a core':>17}{'samples/s':>11}{'MB/s':>8}   {_OURS} is, a core")
    for name, mine in turns.items():
        core, wall = (statistics.median(len(samples) / getattr(t, kind) for t in mine) for kind in ("cpu", "wall"))
        print(f"{name:30}{core:17,.0f}{wall:11,.0f}{wall * samples.bytes / len(samples) / 1e6:8,.0f}", end="")
        if _OURS not in turns or name == _OURS:
            print()
            continue
        ratio = statistics.median(b.cpu / a.cpu for a, b in zip(turns[_OURS], mine, strict=True))
        goal = _GOALS.get(name)
        verdict = "" if goal is None else f" (goal {goal:g}: {'met' if ratio >= goal else 'NOT met'})"
        print(f"   {ratio:5.2f} times{verdict}")


def _say_where() -> None:
    def known(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "absent"

    print(f"python {platform.python_version()}, " + ", ".join(f"{name} {known(name)}" for name in _PACKAGES))
    print(f"{os.cpu_count()} cores, {_processor()}, load {os.getloadavg()[0]:.1f} at the start")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
