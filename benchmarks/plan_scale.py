"""What does planning cost at the size of the whole data? `python -m benchmarks.plan_scale [--samples 25000000]`

Makes a population of that many samples in 41 buckets of uneven sizes (Zipf's law) with two caption variants, in files
as the manifest has them, and asks of a fresh process for each policy: the time until the first batch, until a batch at
99 % of an epoch and of a distant one, the time of the batches after it, anonymous memory that was added, and how much
of the mapped files became resident. These are members and tokens, 4 B a sample and 2 B a caption variant, which the
processes of a machine share; the kernel maps neighbours of a page that is touched, so it is more than is used. Not
counted are the ids of the samples in batches, which lie in the records that the reader needs of them anyway. Beside
it, the order of an epoch as an array, the simpler way to have one.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.data.bijection import Bijection
from training.data.inspection import shuffle_quality
from training.data.mixture import Share
from training.data.plan import Plan
from training.data.policy import Policy
from training.data.population import Population, Stratum, grouped

BUCKETS: Final = 41
EPOCH: Final = 30  # the distant one
SHARD: Final = 10_000  # samples
RANKS: Final = 8  # of a machine, for bytes a sample
DATASETS: Final = (Share("a", 1.0, (3.0, 1.0)), Share("b", 0.3, (1.0, 1.0)))
POLICIES: Final = {
    "256 samples": Policy(256),
    "256 samples, mixture, 2 captions": Policy(256, datasets=DATASETS),
    "256 samples, window 65,536": Policy(256, shuffle_window=1 << 16),
    "80,000 tokens": Policy(0, 80_000),
    "80,000 tokens, mixture, window": Policy(0, 80_000, shuffle_window=1 << 16, datasets=DATASETS),
}


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--samples", type=int, default=25_000_000)
    command.add_argument("--folder", type=Path, help="where to put the files (default: a temporary directory)")
    command.add_argument("--one", help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.one:
        print(json.dumps(measure(options.folder, options.one)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        seconds = write(Path(folder), options.samples)
        print(f"{options.samples:,} samples, {BUCKETS} buckets, 2 caption variants; numpy {version('numpy')}, ", end="")
        print(f"python {platform.python_version()}, {platform.machine()}, one thread")
        print(f"members of all buckets, once a machine: {seconds:.1f} s")
        print()
        columns = ("first batch", "at 99 %", f"epoch {EPOCH}", "a batch", "anonymous", "mapped", f"B, {RANKS} ranks")
        print(f"{'':34}" + "".join(f"{name:>13}" for name in columns))
        for name in POLICIES:
            arguments = [sys.executable, "-m", "benchmarks.plan_scale", "--folder", folder, "--one", name]
            run = subprocess.run(arguments, capture_output=True, text=True, check=True)
            found = json.loads(run.stdout)
            times = f"{found['first']:11.3f} s{found['late']:11.3f} s{found['distant']:11.3f} s"
            memory = f"{found['anonymous'] / 2**20:9.1f} MiB{found['mapped'] / 2**20:9.1f} MiB"
            a_sample = (found["mapped"] + RANKS * found["anonymous"]) / options.samples
            print(f"{name:34}{times}{found['batch'] * 1e3:10.3f} ms{memory}{a_sample:13.2f}")
        print()
        qualities(Path(folder))
        print()
        orders(options.samples)
    print("\nPeers, as their sources and threads say (not run here): torchtitan, Open-Sora and mosaicml-streaming hold")
    print("the order of an epoch as an array a process or a machine (8 B a sample and more); skipping batches to get")
    print("to a place takes hours (transformers#21934: 6.5 h, #11284: 28 h).")


def write(folder: Path, samples: int) -> float:
    """The files of a population; seconds that grouping them took."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, BUCKETS + 1)
    bucket = rng.choice(BUCKETS, samples, p=shares / shares.sum()).astype(np.int16)
    starts = [0, samples * 3 // 5, samples]
    start = time.perf_counter()
    members, strata = grouped(bucket, starts)
    seconds = time.perf_counter() - start
    members.tofile(folder / "members.bin")
    tokens = np.stack([rng.integers(40, 121, samples), rng.integers(5, 60, samples)], axis=1).astype(np.uint16)
    tokens.tofile(folder / "tokens.bin")
    np.arange(samples, dtype=np.uint64).tofile(folder / "sample.bin")
    whole, _ = grouped(bucket, [0, samples])
    whole.tofile(folder / "members-whole.bin")
    about = {"starts": starts, "strata": [(s.dataset, s.bucket, s.first, s.size) for s in strata]}
    sizes = np.bincount(bucket, minlength=BUCKETS).tolist()
    firsts = np.cumsum([0, *sizes]).tolist()
    about["whole"] = [(0, b, firsts[b], size) for b, size in enumerate(sizes) if size]
    (folder / "about.json").write_text(json.dumps(about))
    return seconds


def population(folder: Path, mixture: bool) -> Population:
    """The population in `folder`, as two datasets or as one."""
    about = json.loads((folder / "about.json").read_text())
    strata = about["strata"] if mixture else about["whole"]

    def mapped(name: str, kind: str) -> np.ndarray[Any, Any]:
        return np.memmap(folder / f"{name}.bin", kind, "r").view(np.ndarray)

    return Population(
        digest="0" * 32,
        starts=tuple(about["starts"]) if mixture else (0, about["starts"][-1]),
        strata=tuple(Stratum(*stratum) for stratum in strata),
        members=mapped("members" if mixture else "members-whole", "<i4"),
        latent_cells=((32, 32),) * BUCKETS,
        sample=mapped("sample", "<u8"),
        tokens=mapped("tokens", "<u2").reshape(-1, 2),
        flipped=None,
    )


def measure(folder: Path, name: str) -> dict[str, float]:
    """One policy in this process."""
    policy = POLICIES[name]
    mixture = len(policy.datasets) > 1
    if not mixture:
        shares = (Share("", 1.0, (3.0, 1.0)),)
        policy = replace(policy, datasets=shares)
    before = _resident("RssAnon")
    samples = population(folder, mixture)

    def entered(step: int) -> float:
        """Seconds until the batch of `step`, by a plan that knows nothing yet."""
        start = time.perf_counter()
        Plan(samples, 0, policy).batch(step)
        return time.perf_counter() - start

    first = entered(0)
    plan = Plan(samples, 0, policy)
    step = plan.steps_before(1) * 99 // 100
    late = entered(step)
    distant = plan.steps_before(EPOCH) + step
    far = entered(distant)
    plan.batch(distant)
    start = time.perf_counter()
    for following in range(distant, distant + 2000):
        plan.batch(following)
    batch = (time.perf_counter() - start) / 2000
    return {
        "first": first,
        "late": late,
        "distant": far,
        "batch": batch,
        "anonymous": _resident("RssAnon") - before,
        "mapped": sum(_mapped(folder / f"{n}.bin") for n in ("members", "members-whole", "tokens")),
    }


def qualities(folder: Path) -> None:
    """How well windows of several sizes shuffle, and how local their reads are."""
    samples = population(folder, mixture=False)
    files = (np.arange(len(samples)) // SHARD).astype(np.int32)
    print(f"shuffle of batches of 256, shards of {SHARD:,} samples; in brackets what shuffling all gives")
    columns = ("correlation", "neighbours together", "shards a batch", "shards 64 batches")
    print(f"{'window':>12}" + "".join(f"{name:>24}" for name in columns))
    for window in (0, 1 << 20, 1 << 16, 1 << 12):
        plan = Plan(samples, 0, Policy(256, shuffle_window=window, datasets=(Share("", 1.0, (3.0, 1.0)),)))
        found = shuffle_quality(samples, plan, files)
        cells = (
            f"{found.position_correlation:+.4f} (±{found.position_correlation_shuffled:.4f})",
            f"{found.neighbours_together:.5f} ({found.neighbours_together_shuffled:.5f})",
            f"{found.files_a_batch:.1f} ({found.files_a_batch_shuffled:.1f})",
            f"{found.files_a_stretch:.1f} of {found.files:,}",
        )
        print(f"{window or 'all':>12}" + "".join(f"{cell:>24}" for cell in cells))


def orders(samples: int) -> None:
    """An order of all samples: by a bijection, place by place, and as an array."""
    start = time.perf_counter()
    bijection = Bijection("order", samples)
    for first in range(0, samples, 1 << 18):
        bijection(np.arange(first, min(first + (1 << 18), samples)))
    computed = time.perf_counter() - start
    start = time.perf_counter()
    Bijection("order", samples)(np.arange(256))
    one = time.perf_counter() - start
    start = time.perf_counter()
    np.argsort(np.random.Philox(key=0).random_raw(samples), kind="stable").astype(np.int32)
    sorted_ = time.perf_counter() - start
    start = time.perf_counter()
    np.random.Generator(np.random.Philox(key=0)).permutation(samples).astype(np.int32)
    shuffled = time.perf_counter() - start
    print(
        f"an order of all samples by bijection: all places {computed:.1f} s, 256 places {one * 1e3:.2f} ms, no memory"
    )
    print(
        f"  as int32 array: by sorting {sorted_:.1f} s, by shuffling {shuffled:.1f} s; 4 B a sample and process kept,"
    )
    print("  12 to 20 B a sample while it is made")


def _resident(kind: str) -> float:
    with open("/proc/self/status") as file:
        return next(float(line.split()[1]) * 1024 for line in file if line.startswith(f"{kind}:"))


def _mapped(path: Path) -> float:
    """Bytes of `path` that are resident in this process."""
    total, inside = 0.0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if "-" in line.split(maxsplit=1)[0]:
                inside = line.rstrip().endswith(str(path))
            elif inside and line.startswith("Rss:"):
                total += float(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    main()
