"""What a run cost: device time, images, energy, over all its starts. In RUN/cost.json, a session a start.

Device time runs from when training is set up to the last record, what a kill undid included: it was paid for. Records
are written at log steps, at most one in half a minute, so a kill loses about as much. Energy is gathered from all ranks
when the run is saved; `joules_seconds` says how much of the time it covers.
"""

import datetime
import platform
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from schemas.errors import StorageError
from schemas.record import from_json, to_json
from training.checkpoints.folder import replace_text
from training.cost.energy import EnergyMeter, energy_meter
from training.distributed.world import World

COST: Final = "cost.json"
DAY: Final = 86_400.0
KILOWATT_HOUR: Final = 3.6e6  # joules
_EVERY: Final = 30.0  # seconds between two records


@dataclass(frozen=True, slots=True)
class Session:
    """One start of a run."""

    started: str  # UTC
    devices: dict[str, int]  # how many of each name: GPUs, or machines where it runs on their CPUs
    seconds: float
    first_images: int  # images seen when it began
    images: int  # images seen at the last record
    joules: float | None  # of all devices; None where one of them does not tell
    joules_seconds: float  # of `seconds`, how many `joules` covers
    energy: str  # who told it, or why nobody did


@dataclass(frozen=True, slots=True)
class CostRecord:
    """`cost.json`."""

    sessions: tuple[Session, ...] = ()


@dataclass(frozen=True, slots=True)
class Cost:
    """The sum over sessions, of one run or of several."""

    device_days: dict[str, float]  # by name
    images: int  # images seen, each step once: what was done again after a kill does not count twice
    seconds: float
    joules: float | None  # None if a part is not told
    joules_share: float  # of the device time that `joules` covers
    energy: tuple[str, ...]  # who told it, and why somebody did not

    @property
    def days(self) -> float:
        """Device days, whatever the devices."""
        return sum(self.device_days.values())


def total(records: list[CostRecord]) -> Cost:
    """What the runs cost together."""
    days: dict[str, float] = {}
    sessions = [session for record in records for session in record.sessions]
    for session in sessions:
        for name, count in session.devices.items():
            days[name] = days.get(name, 0.0) + count * session.seconds / DAY
    seconds = sum(session.seconds for session in sessions)
    told = [session.joules for session in sessions if session.joules is not None]
    covered = sum(session.joules_seconds for session in sessions if session.joules is not None)
    return Cost(
        device_days=days,
        images=sum(record.sessions[-1].images for record in records if record.sessions),
        seconds=seconds,
        joules=sum(told) if sessions and len(told) == len(sessions) else None,
        joules_share=covered / seconds if seconds else 0.0,
        energy=tuple(sorted({session.energy for session in sessions})),
    )


def read_cost(run: Path) -> CostRecord:
    """The record of a run, empty for one that keeps none. Raises `SchemaError` for a damaged one."""
    path = run / COST
    return from_json(CostRecord, path.read_bytes(), str(path)) if path.is_file() else CostRecord()


class CostMeter:
    """Keeps the record of this start. All ranks make it and call `settle` at the same step; `tick` is free of that.

    The clock runs from when it is made, before the model is; `start` tells where the run then stood.
    """

    def __init__(self, run: Path, world: World) -> None:
        self._run, self._world, self._began, self._written = run, world, time.perf_counter(), 0.0
        here = (platform.node(), device_name(world.device))
        everywhere = world.from_all(here)
        first = everywhere.index(here) == world.rank  # of this machine
        self._meter: EnergyMeter = energy_meter(world.device, first)
        if world.device.type == "cuda":
            devices = dict(Counter(name for _, name in everywhere))
        else:
            devices = dict(Counter(name for _, name in set(everywhere)))
        self._speaks = world.device.type == "cuda" or first
        self._before = world.on_first(lambda: read_cost(run)).sessions
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._session = Session(started, devices, 0.0, 0, 0, None, 0.0, self._meter.source)

    def start(self, images: int) -> None:
        """Begin after `images` seen by earlier starts."""
        self._session = replace(self._session, first_images=images, images=images)

    def tick(self, images: int) -> None:
        """At a log step: read the meter, and write how long it has taken so far if that is due."""
        self._meter.read()
        seconds = time.perf_counter() - self._began
        if self._world.rank == 0 and seconds - self._written >= _EVERY:
            self._write(replace(self._session, seconds=seconds, images=images))

    def settle(self, images: int) -> None:
        """When the run is saved: gather the energy of all ranks too."""
        told = self._world.from_all((self._meter.read(), self._meter.source) if self._speaks else None)
        readings = [one for one in told if one is not None]
        sources = sorted({source for _, source in readings})
        parts = [joules for joules, _ in readings if joules is not None]
        joules = sum(parts) if len(parts) == len(readings) else None
        seconds = time.perf_counter() - self._began
        if self._world.rank == 0:
            session = replace(self._session, seconds=seconds, images=images, joules=joules)
            covered = seconds if joules is not None else 0.0
            self._write(replace(session, joules_seconds=covered, energy="; ".join(sources)))

    def _write(self, session: Session) -> None:
        self._session, self._written = session, session.seconds
        path = self._run / COST
        try:
            replace_text(path, to_json(CostRecord((*self._before, session))))
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}). Free space, then go on.") from None


def device_name(device: torch.device) -> str:
    """What a device is called: a GPU by its driver, a CPU by its own name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
