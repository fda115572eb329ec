"""What is lost when things break? `python -m benchmarks.fault_campaign [--only KIND] [--times N]`

Runs a small real job again and again, each time with a fault at a random moment, then the same command until it ends
well. After each fault and by a reader all the while: what ledger entries vouch for is there, with the bytes of a run
that nothing disturbed. At the end: all bytes are that run's, each input key is kept or rejected exactly once, nothing
under a temporary name is left and no process. Prints a table; the first check that fails ends it, with what repeats it.
"""

import argparse
import itertools
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pyarrow as pa
import ray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from campaign import KEYS, UNITS
from fork_server import ForkServer

from benchmarks.fault_kinds import KINDS, Kind
from benchmarks.fault_step import Ground, SkippedError, Step, Strike, demand
from curation.shards import target

COLUMNS = (
    "fault",
    "where",
    "times",
    "units in flight then, in sum; units done",
    "runs until done",
    "rows lost",
    "rows twice",
    "bytes that differ",
)


@dataclass(slots=True)
class Row:
    """What the steps of a kind of fault gave."""

    kind: Kind
    steps: list[Step] = field(default_factory=list)
    skipped: str = ""

    @property
    def strikes(self) -> list[Strike]:
        """All faults."""
        return [strike for step in self.steps for strike in step.strikes]

    def line(self) -> str:
        """The row of the table."""
        cells = [self.kind.fault, self.kind.where]
        if not self.strikes:
            return f"| {' | '.join([*cells, f'not done: {self.skipped}'])} | | | | | |"
        done, runs = [strike.done for strike in self.strikes], [step.runs for step in self.steps]
        struck = f"{sum(strike.in_flight for strike in self.strikes)}; {min(done)}–{max(done)} done"
        counts = (sum(getattr(step.found, what) for step in self.steps) for what in ("lost", "twice", "bytes"))
        cells += [str(len(self.strikes)), struck, f"{min(runs)}–{max(runs)}", *map(str, counts)]
        return f"| {' | '.join(cells)} |"


def run_kind(name: str, ground: Ground, options: argparse.Namespace) -> Row:
    """Steps of one kind until it has struck as often as asked for."""
    row, start = Row(KINDS[name]), time.perf_counter()
    for number in itertools.count() if options.step is None else [options.step]:
        step = Step(ground.folder / f"{name}-{number}" / "out", ground.expected, KEYS)
        step.out.parent.mkdir()
        try:
            with step.watched():
                row.kind.step(ground, step, random.Random(f"{options.seed} {name} {number}"), number)
        except SkippedError as error:
            row.skipped = str(error)
            break
        except BaseException as error:
            repeat = f"--only {name} --seed {options.seed} --step {number}"
            error.add_note(f"Again by `python -m benchmarks.fault_campaign {repeat}`; the machine's pace is its own.")
            raise
        shutil.rmtree(step.out, ignore_errors=True)
        row.steps.append(step)
        if len(row.strikes) >= (options.times or row.kind.times):
            break
    print(f"{name}, {time.perf_counter() - start:.0f} s: {row.line()}", file=sys.stderr, flush=True)
    return row


def campaign(options: argparse.Namespace, stack: ExitStack) -> None:
    """Every kind asked for, then the table."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir=options.folder)))
    (folder / "tmp").mkdir()
    tempfile.tempdir = str(folder / "tmp")
    target._UPLOAD_PAUSES = (0.0, 0.0)  # the store in memory refuses by count, not by time
    jobs = [stack.enter_context(ForkServer("copy_child.py", folder / f"job-{number}.log")) for number in range(2)]
    ground = Ground(folder, options.serve_python, stack, (jobs[0], jobs[1]))
    ground.prepare()
    rows = [run_kind(name, ground, options) for name in options.only or KINDS]
    versions = f"Python {platform.python_version()}, Ray {ray.__version__}, PyArrow {pa.__version__}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}"
    print(f"{datetime.now(UTC):%Y-%m-%d}; {machine}; {versions}; seed {options.seed}")
    print(f"One run of {UNITS} units, undisturbed and inline: {ground.seconds:.2f} s\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    print("\n".join(row.line() for row in rows))
    looks = sum(step.looks for row in rows for step in row.steps)
    print(f"\nA reader looked {looks:,} times meanwhile and saw nothing partial. Nothing temporary was left.")


def main() -> None:
    """Run what is named, or all."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--only", nargs="+", choices=tuple(KINDS), metavar="KIND", help=f"of {', '.join(KINDS)}")
    command.add_argument("--times", type=int, help="how often each kind strikes, default: 3 to 100 by kind")
    command.add_argument("--seed", type=int, default=0, help="of the moments")
    command.add_argument("--step", type=int, help="only this step of a kind, as a failure names it")
    command.add_argument("--serve-python", default=sys.executable, help="a Python that has `transformers serve`")
    command.add_argument("--folder", help="where the files go for the time being, default: the system's")
    with ExitStack() as stack:
        campaign(command.parse_args(), stack)
    left = psutil.Process().children(recursive=True)
    demand(not left, f"processes are left: {left}")


if __name__ == "__main__":
    main()
