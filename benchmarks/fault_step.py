"""What each fault of `benchmarks.fault_campaign` has at hand: the ground it happens on, and the account of a step."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from campaign import Campaign, write_shards
from dataset_files import (
    Difference,
    Files,
    broken_promises,
    data_of,
    difference,
    units_done,
    units_in_flight,
)
from fork_server import ForkServer
from ray_cluster import Nodes
from served_captions import ServedJob

NOTHING = Difference()


class SkippedError(Exception):
    """This kind of fault cannot be made here; says why."""


class Strike(NamedTuple):
    """What a fault found: units done, and units begun and not done."""

    done: int
    in_flight: int


def demand(holds: object, what: str) -> None:
    """End the campaign unless it `holds`."""
    if not holds:
        raise AssertionError(what)


@dataclass(slots=True)
class Step:
    """One output directory: the faults that strike while it is written, and what is read there."""

    out: Path
    expected: Files
    keys: Sequence[str]
    strikes: list[Strike] = field(default_factory=list)
    runs: int = 0
    looks: int = 0
    found: Difference = NOTHING

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look all the while at what a reader would see."""
        wrong: list[str] = []
        stop = threading.Event()

        def look() -> None:
            while not stop.wait(0.01) and not wrong:
                wrong.extend(broken_promises(self.out, self.expected))
                self.looks += self.out.exists()

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        demand(not wrong, f"a reader found that {wrong[:3]}")

    def struck(self, in_flight: int | None = None) -> None:
        """A fault has struck: nothing partial may be visible."""
        wrong = broken_promises(self.out, self.expected)
        demand(not wrong, f"after the fault {wrong[:3]}")
        if in_flight is None:
            in_flight = len(units_in_flight(self.out))
        self.strikes.append(Strike(units_done(self.out), in_flight))

    def ended(self, code: int, said: str, *, well: bool = True) -> None:
        """A run has ended; `well`: with nothing left to do."""
        self.runs += 1
        if well:
            demand(code == 0, f"exit code {code}: {said[-2000:]}")
            self.compare(data_of(self.out))

    def compare(self, data: Files) -> None:
        """`data` must be the undisturbed run's."""
        self.found = difference(data, self.expected, self.keys)
        demand(self.found == NOTHING, f"the end differs: {self.found}")


@dataclass(slots=True)
class Ground:
    """Where the campaign runs: input, the undisturbed run's files, and processes that run jobs."""

    folder: Path
    serve_python: str
    stack: ExitStack
    jobs: tuple[ForkServer, ForkServer]
    expected: Files = field(default_factory=dict)
    seconds: float = 0.0
    longest: float = 0.0  # seconds until a random moment
    nodes: Nodes | None = None
    disk: Path | None = None
    served: tuple[ServedJob, Files, float] | None = None

    def prepare(self) -> None:
        """Write the input and run the job three times undisturbed."""
        write_shards(self.folder / "in")
        spent = []
        for number in range(3):
            start = time.perf_counter()
            out = self.folder / f"undisturbed-{number}"
            demand(self.jobs[0].run(self.campaign(out).arguments()) == 0, self.jobs[0].said)
            spent.append(time.perf_counter() - start)
            demand(number == 0 or data_of(out) == self.expected, "two undisturbed runs differ")
            self.expected = data_of(out)
        self.seconds = self.longest = min(spent)

    def campaign(self, out: Path) -> Campaign:
        """The job with its output there."""
        return Campaign(self.folder / "in", out, dict(self.expected))

    def again(self, step: Step) -> None:
        """The same command, undisturbed."""
        step.ended(self.jobs[0].run(self.campaign(step.out).arguments()), self.jobs[0].said)
