"""What does running units cost? `python -m benchmarks.scheduling [workers|units|driver]`

    workers   a stage that only computes, on one Ray worker and on two, in turns: how near to twice as fast?
    units     10,000 tiny units over Ray, each published and entered in the ledger: units a second
    driver    100,000 units by one process: its memory, and how long the same command takes once all is done

The stage is the smallest that publishes: a unit is rows of numbers, written as a table. Times are from the first unit's
start to the last one's end, so Ray's own start is left out.
"""

import argparse
import io
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray
from rich.console import Console

from curation.execution.clock import PhaseClock
from curation.execution.job import Job, JobOptions, run_job
from curation.execution.plan import ShardPlan
from curation.execution.stage import StageSpec, Unit
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import InputIdentity, PlannedUnit, table_path
from schemas.reading import open_dataset
from schemas.table import Column, TableSchema

NUMBERS = TableSchema(
    "numbers", 1, (Column("key", pa.string(), "number"), Column("value", pa.int64(), "checksum of the work"))
)
UNITS_A_SHARD = 100


@dataclass(frozen=True, slots=True)
class NumberStage:
    """Writes each row's number after `effort` rounds of compressing 100 kB."""

    effort: int

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec("numbers", 1, NUMBERS, {"effort": self.effort})

    def open(self) -> "NumberWorker":
        """Nothing to load."""
        return NumberWorker(self.effort)


class NumberWorker:
    """Does the work of one unit at a time."""

    def __init__(self, effort: int) -> None:
        self._effort, self._data = effort, bytes(range(256)) * 400

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Every row is kept."""
        sink = writer.table(table_path(unit.name), NUMBERS)
        for number in range(unit.planned.start, unit.planned.stop):
            value = number
            with clock.phase("compute"):
                for _ in range(self._effort):
                    value = zlib.crc32(zlib.compress(self._data, 9), value)
            sink.write([{"key": str(number), "value": value}])
            writer.keep(str(number))

    def close(self) -> None:
        """Nothing to give back."""


def units_of(count: int, rows: int) -> Iterator[ShardPlan]:
    """`count` units of `rows` rows, some to a shard."""
    for first in range(0, count, UNITS_A_SHARD):
        shard = f"shard-{first // UNITS_A_SHARD:05d}"
        names = range(min(UNITS_A_SHARD, count - first))
        identity = InputIdentity(f"{shard}.tar", 1, "0" * 32, "")
        yield ShardPlan(
            shard,
            tuple(
                Unit(PlannedUnit(f"{shard}-{i:05d}", shard, i * rows, (i + 1) * rows), shard, (identity,))
                for i in names
            ),
        )


def run(out: Path, count: int, *, effort: int = 0, rows: int = 1, workers: int = 0) -> float:
    """Run `count` units, on Ray where there are `workers`. Seconds from start to end."""
    names = sorted({plan.shard for plan in units_of(count, rows)})
    job = Job(NumberStage(effort), Target(str(out)), "numbers", names, units_of(count, rows), 0)
    start = time.perf_counter()
    summary = run_job(job, JobOptions(workers=max(workers, 1), use_ray=workers > 0), Console(file=io.StringIO()))
    assert summary.exit_code == 0
    assert summary.units_done + summary.units_current == count
    return time.perf_counter() - start


def busy_seconds(out: Path) -> float:
    """From the first output's beginning to the last one's end, by the ledger's files."""
    entries = open_dataset(str(out), "numbers").require_whole().entries
    ends = {entry.unit: (out / "ledger" / f"{entry.unit}.json").stat().st_mtime for entry in entries}
    begin = min(ends[entry.unit] - entry.run.seconds for entry in entries)
    return max(ends.values()) - begin


def workers(options: argparse.Namespace) -> None:
    """One worker against two."""
    ratios = []
    for _ in range(options.rounds):
        spent = {}
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                run(Path(folder) / "out", 40, effort=1500, rows=1, workers=count)
                spent[count] = busy_seconds(Path(folder) / "out")
        ratios.append(spent[1] / spent[2])
        print(f"one worker {spent[1]:.2f} s, two {spent[2]:.2f} s: x{ratios[-1]:.3f}", flush=True)
    print(f"x{statistics.median(ratios):.3f} in the median of {options.rounds}")


def units(options: argparse.Namespace) -> None:
    """Tiny units over Ray."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run(Path(folder) / "out", options.units or 10_000, workers=2)
        spent = busy_seconds(Path(folder) / "out")
        count = options.units or 10_000
        print(f"{count:,} units over two Ray workers in {spent:.1f} s: {count / spent:,.0f} units/s, each published")


def driver(options: argparse.Namespace) -> None:
    """Many units in one process: memory, and a second run. Each run is a process of its own."""
    count = options.units or 100_000
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in ("first run", "same command again"):
            line = [sys.executable, "-m", "benchmarks.scheduling", "once", "--out", f"{folder}/out"]
            done = subprocess.run([*line, "--units", str(count)], check=True, capture_output=True, text=True)
            print(f"{name}: {done.stdout.strip()}", flush=True)


def once(options: argparse.Namespace) -> None:
    """One run of `driver`, inline."""
    spent = run(Path(options.out), options.units)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.units:,} units in {spent:.1f} s ({options.units / spent:,.0f} units/s), {peak:,.0f} MiB at most")


def main() -> None:
    """Run what is named."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("what", choices=("workers", "units", "driver", "once"))
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--units", type=int, default=0)
    command.add_argument("--folder", help="where the output goes for the time being, default: the system's")
    command.add_argument("--out", help=argparse.SUPPRESS)
    options = command.parse_args()
    if options.what != "once":
        print(
            f"{platform.machine()}, Python {platform.python_version()}, ray {ray.__version__}, pyarrow {pa.__version__}"
        )
    {"workers": workers, "units": units, "driver": driver, "once": once}[options.what](options)


if __name__ == "__main__":
    main()
