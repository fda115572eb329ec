"""Run units on Ray: a pool of actors that each hold a model, fed from a queue by the driver.

Plain actors over units and not Ray Data: the unit is ours, so its output has a name, its loss costs one unit, and the
order in which units end never shows. Only paths travel through Ray; the object store stays empty.
"""

import contextlib
import itertools
import math
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from curation.execution.run_unit import UnitDone, UnitFailed, run_unit
from curation.execution.stage import Stage, Unit
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.errors import ExitCode, GuardError, UserError

_POLL_SECONDS = 0.5
_END_SECONDS = 10.0
_OBJECT_STORE_BYTES = 128 << 20  # of Ray's shared memory, by default a third of all memory; only paths go through it


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How many actors, what each needs, and where. `address` None starts Ray on this machine for this job alone."""

    workers: int
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """Where a worker process is, and what the user must mend before it can work (None: nothing)."""

    host: str
    pid: int
    trouble: str | None
    exit_code: ExitCode


class UnitActor:
    """A worker process. Two threads: one works, the other answers how far it is."""

    def __init__(self, stage: Stage, target: Target) -> None:
        self._stage, self._target = stage, target
        self._worker: Any = None
        self._writer: UnitWriter | None = None

    def open(self) -> Opened:
        """Load the model, and clear away what a dead worker left on this host."""
        trouble, exit_code = None, ExitCode.OK
        try:
            self._target.sweep()
            self._worker = self._stage.open()
        except UserError as error:
            trouble, exit_code = str(error), error.exit_code
        return Opened(socket.gethostname(), os.getpid(), trouble, exit_code)

    def run(self, unit: Unit, attempt: int) -> UnitDone | UnitFailed:
        """Do one unit."""
        try:
            return run_unit(self._stage, self._worker, self._target, unit, attempt, self._watch)
        finally:
            self._writer = None

    def rows_in_flight(self) -> int:
        """Rows done in the unit under way."""
        writer = self._writer
        return writer.rows_done if writer else 0

    def _watch(self, writer: UnitWriter) -> None:
        self._writer = writer


@dataclass(slots=True)
class _Slot:
    """One place of the pool: an actor, what it is doing, and what it last said of its progress."""

    actor: Any
    unit: Unit | None = None
    asked: Any = None
    rows: int = 0


class RayExecutor:
    """The executor for many GPUs or CPUs.

    A unit whose actor dies goes back to the queue and the actor is replaced; after `attempts` deaths or errors the unit
    is set aside as failed and the rest goes on.
    """

    def __init__(self, options: RayOptions, attempts: int) -> None:
        self._options, self._attempts = options, attempts
        self._slots: dict[Any, _Slot] = {}  # by the reference of the call that the actor is busy with
        self._retries: deque[Unit] = deque()
        self._tries: Counter[str] = Counter()
        self._loading_deaths = 0
        self._exhausted = False
        self._processes: list[psutil.Process] = []  # the workers of this machine

    @property
    def rows_in_flight(self) -> int:
        """Rows done in the units under way, as far as the actors have said."""
        return sum(slot.rows for slot in list(self._slots.values()))  # a copy: the progress thread asks

    def run(self, stage: Stage, target: Target, units: Iterable[Unit]) -> Iterator[UnitDone | UnitFailed]:
        """The outcome of each unit, as they come. Ray is started when the first unit comes, and stopped at the end."""
        source = iter(units)
        self._retries.extend(itertools.islice(source, self._options.workers))
        if not self._retries:
            return
        try:
            self._start()
            for _ in range(len(self._retries)):
                self._add_actor(stage, target)
            while self._slots and not self._all_done():
                done, _ = ray.wait(list(self._slots), num_returns=1, timeout=_POLL_SECONDS)
                for reference in done:
                    yield from self._settle(reference, stage, target, source)
                self._ask_progress()
        finally:
            self._slots.clear()
            ray.shutdown()  # ends the actors, here or on the cluster: they live as long as their driver
            _wait_for_end(self._processes)

    def _start(self) -> None:
        address = self._options.address
        workers = self._options.workers
        need = {"CPU": self._options.cpus * workers, "GPU": self._options.gpus * workers}
        local = {
            "num_cpus": max(1, math.ceil(need["CPU"])),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else local)
            )
        except SystemExit:  # what ray.init makes of a SIGTERM
            signal.signal(signal.SIGTERM, on_sigterm)
            os.kill(os.getpid(), signal.SIGTERM)
        except (ConnectionError, RuntimeError, ValueError) as error:
            what = f"--ray-address {address}: cannot join the cluster" if address else "Ray cannot be started here"
            raise UserError(f"{what} ({_one_line(error)}). Is it up, and is /tmp writable?") from error
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # ray.init replaces it by one that exits with a traceback
        have = ray.cluster_resources()
        for name, amount in need.items():
            if amount > have.get(name, 0.0):
                found = f"{have.get(name, 0.0):g}"
                raise UserError(
                    f"{amount:g} {name}s wanted, Ray has {found}. Ask for fewer --workers or join a cluster."
                )

    def _add_actor(self, stage: Stage, target: Target) -> None:
        remote = ray.remote(num_cpus=self._options.cpus, num_gpus=self._options.gpus, max_concurrency=2)(UnitActor)
        actor = remote.remote(stage, target)
        self._slots[actor.open.remote()] = _Slot(actor)

    def _settle(
        self, reference: Any, stage: Stage, target: Target, source: Iterator[Unit]
    ) -> Iterator[UnitDone | UnitFailed]:
        """Take the answer of one actor, and give it (or its replacement) the next thing to do."""
        slot = self._slots.pop(reference)
        unit, slot.unit, slot.rows = slot.unit, None, 0
        try:
            answer = ray.get(reference)
        except RayTaskError:
            raise
        except RayError as error:  # died, unreachable, out of memory, its node gone
            ray.kill(slot.actor)  # one that is only unreachable must not go on beside its replacement
            outcome = self._after_death(unit, error)
            if outcome is not None:
                yield outcome
            upcoming = self._next(source)
            if upcoming is not None:
                self._retries.appendleft(upcoming)
                self._add_actor(stage, target)
            return
        if isinstance(answer, Opened):
            if answer.trouble is not None:
                failure = UserError(answer.trouble)
                failure.exit_code = answer.exit_code
                raise failure
            self._loading_deaths = 0
            if answer.host == socket.gethostname():
                with contextlib.suppress(psutil.NoSuchProcess):
                    self._processes.append(psutil.Process(answer.pid))
        elif unit is not None and isinstance(answer, UnitFailed) and answer.fatal is None and self._may_retry(unit):
            self._retries.append(unit)
        else:
            yield answer
        upcoming = self._next(source)
        if upcoming is None:
            ray.kill(slot.actor)
        else:
            slot.unit = upcoming
            attempt = self._tries[upcoming.name] + 1
            self._slots[slot.actor.run.remote(upcoming, attempt)] = slot

    def _next(self, source: Iterator[Unit]) -> Unit | None:
        if self._retries:
            return self._retries.popleft()
        upcoming = next(source, None)
        self._exhausted = upcoming is None
        return upcoming

    def _all_done(self) -> bool:
        """Whether no unit is left for the slots that there are. Where a node is gone for good, a replacement may wait
        for a place for ever while the others do its work."""
        return self._exhausted and not self._retries and all(slot.unit is None for slot in self._slots.values())

    def _may_retry(self, unit: Unit) -> bool:
        self._tries[unit.name] += 1
        return self._tries[unit.name] < self._attempts

    def _after_death(self, unit: Unit | None, error: RayError) -> UnitFailed | None:
        if unit is None:
            self._loading_deaths += 1
            if self._loading_deaths >= self._attempts:
                raise GuardError(
                    f"a worker died {self._loading_deaths} times while loading its model ({_one_line(error)}). "
                    f"Is there memory for --workers {self._options.workers} of them?"
                )
            return None
        if self._may_retry(unit):
            self._retries.append(unit)
            return None
        return UnitFailed(unit, f"its worker died {self._attempts} times ({_one_line(error)})", trace=str(error))

    def _ask_progress(self) -> None:
        for slot in self._slots.values():
            if slot.unit is None:
                continue
            if slot.asked is None:
                slot.asked = slot.actor.rows_in_flight.remote()
                continue
            answered, _ = ray.wait([slot.asked], timeout=0)
            if answered:
                try:
                    slot.rows = ray.get(slot.asked)
                except RayError:
                    slot.rows = 0  # the death itself is settled where the unit's own answer is taken
                slot.asked = None


def _wait_for_end(processes: Sequence[psutil.Process]) -> None:
    """Wait until worker processes are gone, so that what they left can be cleared away."""
    _, stubborn = psutil.wait_procs(processes, timeout=_END_SECONDS)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=_END_SECONDS)


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
