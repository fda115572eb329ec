"""How long each stage took and what limited it: from the ledger's run facts, and from the summaries of its runs."""

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.execution.summary import JobSummary
from schemas.dataset import RUNS_DIR
from schemas.reading import Dataset


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of a stage, as `runs/<moment>.json` tells it. `moment` is UTC; seconds are wall time."""

    moment: str
    seconds: float
    units: int
    rows: int
    exit_code: int
    stopped_by: str


@dataclass(frozen=True, slots=True)
class StageTime:
    """Where a dataset's time went.

    `worker_seconds` adds up the units' own seconds, whichever worker did them; `phases` what they spent waiting for or
    doing each thing, which may overlap. `runs` are those that finished units, oldest first; their rows may have been
    made under earlier settings. `retried` counts units that took more than one attempt.
    """

    kind: str
    stage: str
    units: int
    rows: int
    worker_seconds: float
    phases: dict[str, float]
    limited_by: str
    output_bytes: int
    hosts: int
    retried: int
    runs: tuple[RunRecord, ...]
    unreadable_runs: int

    @property
    def rows_per_worker_second(self) -> float | None:
        """Rows a second of one worker; None where nothing was timed."""
        return self.rows / self.worker_seconds if self.worker_seconds else None

    @property
    def wall_seconds(self) -> float:
        """Wall time of all runs that finished units."""
        return sum(run.seconds for run in self.runs)

    @property
    def rows_per_second(self) -> float | None:
        """Rows a second of wall time over those runs; None without any."""
        return sum(run.rows for run in self.runs) / self.wall_seconds if self.wall_seconds else None


def read_timing(dataset: Dataset) -> tuple[StageTime, str]:
    """Where the time of `dataset` went, and the moment of its newest run (finished units or not; empty if unknown)."""
    summary = JobSummary(dataset.info.stage, dataset.url)
    for entry in dataset.entries:
        summary.add(entry)
    runs, unreadable, newest = _read_runs(dataset)
    time = StageTime(
        kind=dataset.info.kind,
        stage=dataset.info.stage,
        units=len(dataset.entries),
        rows=summary.rows_in,
        worker_seconds=sum(entry.run.seconds for entry in dataset.entries),
        phases=dict(sorted(summary.phases.items(), key=lambda item: (-item[1], item[0]))),
        limited_by=summary.limited_by,
        output_bytes=summary.outputs_bytes,
        hosts=len({entry.run.host for entry in dataset.entries}),
        retried=sum(entry.run.attempt > 1 for entry in dataset.entries),
        runs=tuple(run for run in runs if run.units),
        unreadable_runs=unreadable,
    )
    return time, newest


def _read_runs(dataset: Dataset) -> tuple[list[RunRecord], int, str]:
    """The runs in order of time, how many records could not be read, and the moment of the newest."""
    folder = dataset.path(RUNS_DIR)
    if not dataset.fs.isdir(folder):
        return [], 0, ""
    paths = sorted(p for p in dataset.fs.ls(folder, detail=False) if p.endswith(".json"))
    runs, unreadable = [], 0
    for path in paths:
        run = _run_record(_moment(path), dataset.fs.cat_file(path))
        if run is None:
            unreadable += 1
        else:
            runs.append(run)
    return runs, unreadable, _moment(paths[-1]) if paths else ""


def _run_record(moment: str, content: bytes) -> RunRecord | None:
    """The record in `content`; None if it is none: a run's summary is no data, so it may be missing or torn."""
    try:
        told: Any = json.loads(content)
    except ValueError:
        return None
    if not isinstance(told, Mapping):
        return None
    numbers = [told.get(name, 0) for name in ("seconds", "units_done", "rows_in", "exit_code")]
    if not all(isinstance(number, int | float) for number in numbers):
        return None
    seconds, units, rows, exit_code = numbers
    return RunRecord(moment, float(seconds), int(units), int(rows), int(exit_code), str(told.get("stopped_by") or ""))


def _moment(path: str) -> str:
    """20250131T120501.123Z as 2025-01-31 12:05:01 UTC; other names as they are."""
    name = posixpath.basename(path).removesuffix(".json")
    date, t, clock = name.partition("T")
    if not (t and date.isdecimal() and len(date) == 8 and clock[:6].isdecimal()):
        return name
    return f"{date[:4]}-{date[4:6]}-{date[6:]} {clock[:2]}:{clock[2:4]}:{clock[4:6]} UTC"
