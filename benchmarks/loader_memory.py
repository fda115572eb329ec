"""Does the reader hold its memory? `python -m benchmarks.loader_memory [--samples 1000000] [--threads 4]`

Reads so many uses of samples, as training does: the plan's order, buckets, dropped captions, reused memory; and samples
the resident memory of the process. Compared are the medians of the second and of the last tenth; the first tenth is
when buffers grow to the largest batch.
"""

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import psutil
import torch

from benchmarks.loader_data import corpus, data_folder, write_data_sets
from training.data.manifest import open_manifest
from training.data.plan import Plan
from training.data.policy import Policy
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.reader import Reader

_GOAL = 0.02
_BUCKETS = ((256, 256), (192, 336), (336, 192))
_BATCH = 32


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--samples", type=int, default=1_000_000, help="uses; the data set has 3,000 samples")
    command.add_argument("--threads", type=int, default=4)
    command.add_argument("--lengths", choices=("dense", "alt"), default="alt")
    command.add_argument("--codec", choices=("fp16", "int8"), default="fp16")
    options = command.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        samples = corpus(3000, options.lengths, options.codec, data_folder(), buckets=_BUCKETS)
        manifest = open_manifest(*write_data_sets(samples, Path(folder)))
        del samples
        plan = Plan(manifest.population(), 0, Policy(_BATCH, caption_drop=0.1))
        work = micro_batches(plan, Share(0, 1, _BATCH), range(options.samples // _BATCH))
        loader = Prefetcher(manifest, Reader(manifest), work, options.threads, 4, torch.device("cpu"))
        process, resident, started = psutil.Process(), [], time.perf_counter()
        for number, _ in enumerate(loader):
            if number % 16 == 0:
                resident.append(process.memory_info().rss / 2**20)
        loader.close()
    seconds, tenth = time.perf_counter() - started, max(1, len(resident) // 10)
    second, last = statistics.median(resident[tenth : 2 * tenth]), statistics.median(resident[-tenth:])
    print(f"{options.samples:,} samples in {seconds:,.0f} s, {options.threads} threads, {_BATCH} a batch")
    print(f"python {platform.python_version()}, torch {torch.__version__}")
    print(f"resident MiB: second tenth {second:,.1f}, last tenth {last:,.1f}, highest {max(resident):,.1f}")
    change = last / second - 1
    print(f"change {change:+.2%} (goal within ±{_GOAL:.0%}: {'met' if abs(change) <= _GOAL else 'NOT met'})")


if __name__ == "__main__":
    main()
