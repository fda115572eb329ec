"""What does a training lose that is killed while it saves? `python -m benchmarks.training_kills [--kills N] [--seed S]`

A tiny model is trained and saved at every step, beside training as by default, and gets SIGKILL in one of the first
saves of each start: in turns before or after a random one of the save's system calls, and at a random moment of it. The
same command then goes on. After each kill every checkpoint in place must be whole, its tensors and metrics must load,
and the newest must be no older than what was committed; at the end of each run its weights, losses and snapshots must
be those of a run that nothing disturbed, to the bit. Prints a table by how far the save had come, judged by what it
left. The first thing that does not hold ends it, so that the zeros of the table are what it takes to get there.
"""

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import safetensors
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from fork_server import ForkServer
from training_kills import Campaign

from benchmarks.loader_data import corpus, data_folder, write_data_sets

_SAMPLES = 42
_BUCKETS = ((64, 64), (32, 96))
_WIDTH = 32


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--kills", type=int, default=200)
    command.add_argument("--seed", type=int, default=0, help="of the moments")
    command.add_argument("--folder", help="where the files go for the time being, default: the system's")
    options = command.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="kills-", dir=options.folder) as name:
        folder = Path(name)
        samples = corpus(_SAMPLES, "alt", "fp16", data_folder(), buckets=_BUCKETS, width=_WIDTH)
        latents, text = write_data_sets(samples, folder)
        data = ["--latents", latents, "--text", text, "--manifest-cache", str(folder / "manifests")]
        with ForkServer("training_child.py", folder / "job.log") as server:
            campaign = Campaign(server, folder, data)
            found = campaign.strike(options.kills, random.Random(options.seed))
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, safetensors {safetensors.__version__}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"
    print(f"{datetime.now(UTC):%Y-%m-%d}; {machine}; {versions}; seed {options.seed}")
    print(f"{found.runs} runs of {campaign.steps} steps in {time.perf_counter() - started:.0f} s; ", end="")
    print(f"a save took {campaign.seconds * 1000:.0f} ms undisturbed\n")
    print("| the save that was struck | kills | cannot be loaded | older than the last commit |")
    print("| --- | --- | --- | --- |")
    for reached, times in found.where.most_common():
        print(f"| {reached} | {times} | 0 | 0 |")
    print(f"| together | {found.kills} | 0 | 0 |\n\n{found.runs} of {found.runs} runs ended bitwise as if undisturbed.")


if __name__ == "__main__":
    main()
