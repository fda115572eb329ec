"""Run a stage over everything that is due, and say what was done.

The order of events is what makes a killed job harmless: dataset.json with the new fingerprint first (from here on,
outputs of other settings count as stale), then unit by unit outputs and ledger entries, then plan.json. Killed
anywhere, the same command goes on where it stopped.
"""

import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from rich.console import Console

from curation.execution.inline import InlineExecutor
from curation.execution.plan import INPUT_CHANGED, ROWS_CHANGED, SELECTION_CHANGED, Ledger, ShardPlan
from curation.execution.progress import Progress
from curation.execution.ray_environment import prepare_ray_environment
from curation.execution.run_unit import UnitDone, UnitFailed
from curation.execution.selected import not_found
from curation.execution.signals import Interruption, interruptible
from curation.execution.stage import Stage, Unit
from curation.execution.summary import JobSummary
from curation.shards.fingerprint import differing_keys, digest_of
from curation.shards.target import Target
from schemas.dataset import (
    DATASET_FILE,
    PLAN_FILE,
    RUNS_DIR,
    DatasetInfo,
    LedgerEntry,
    PlannedUnit,
    PlanRecord,
    ledger_path,
)
from schemas.errors import DatasetError, ExitCode, GuardError, UserError
from schemas.reading import damaged_outputs, open_dataset, read_info, read_ledger, read_plan
from schemas.record import canonical_json, to_json
from schemas.selection import Selection
from schemas.status import RejectReason

_ROWS_BEFORE_GUARD = 200


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job runs; nothing here changes what it writes.

    `max_rejected` is the share of rows above which the job stops itself, looked at after 200 rows and at the end.
    """

    workers: int = 1
    use_ray: bool = False
    ray_address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    attempts: int = 3
    max_rejected: float = 1.0


class Executor(Protocol):
    """Runs units somewhere."""

    @property
    def rows_in_flight(self) -> int:
        """Rows done in units that are not finished."""

    def run(self, stage: Stage, target: Target, units: Iterable[Unit]) -> Iterator[UnitDone | UnitFailed]:
        """The outcome of each unit, in any order."""


@dataclass(frozen=True, slots=True)
class Job:
    """A stage, where its input comes from, and where its output goes.

    `source` names the adapter, or the dataset that the input was made by; `shards` are the names of all shards; `plans`
    yields their units, lazily, in order. Of a `selection` that the plans were made with, the summary says what the job
    did not find.
    """

    stage: Stage
    target: Target
    source: str
    shards: Sequence[str]
    plans: Iterable[ShardPlan]
    unit_rows: int = 0
    selection: Selection | None = None


def check_target(job: Job) -> DatasetInfo | None:
    """What is at the job's target now. Raises `DatasetError` if that is another dataset, or no dataset at all."""
    target, spec = job.target, job.stage.spec
    info = read_info(target.url)
    if info is None and _holds_more(target):
        # Another driver may have begun between the two looks; its dataset.json came before all else.
        info = read_info(target.url)
        if info is None:
            what = "not empty and no latentmill dataset" if target.fs.isdir(target.root) else "a file, not a directory"
            raise DatasetError(f"{target.url}: {what}. Name a new or empty --out.")
    if info is None:
        return None
    if info.kind != spec.schema.kind or info.stage != spec.name:
        raise DatasetError(
            f"{target.url}: holds {info.kind} written by pipelines.{info.stage}, not {spec.schema.kind}. "
            f"Name another --out."
        )
    if info.source != job.source:
        raise DatasetError(
            f"{target.url}: was made from {info.source}, this run reads {job.source}. Name another --out, "
            f"so that two sources never share a dataset."
        )
    return info


def unit_rows_of(url: str, asked: int | None, default: int) -> int:
    """Rows a unit for the dataset at `url`: as it was laid out, or as asked for a new one.

    Raises `DatasetError` if an existing dataset was laid out otherwise.
    """
    info = read_info(url)
    if info is None:
        return default if asked is None else asked
    if asked is not None and asked != info.unit_rows:
        raise DatasetError(
            f"{url}: laid out with --unit-rows {info.unit_rows}, not {asked}. Leave it out, or name another --out."
        )
    return info.unit_rows


def dry_run(job: Job, console: Console) -> JobSummary:
    """Say for each unit whether and why it would run; write nothing."""
    info = check_target(job)
    summary = JobSummary(job.stage.spec.name, job.target.url)
    ledger = _read_ledger(job, info)
    for plan in job.plans:
        if plan.unread:
            summary.due["not read yet (whole shards)"] += 1
            _say(console, f"{plan.shard}: due, the shard has not been read yet")
        for unit in plan.units:
            reason = ledger.why_due(unit)
            if reason is None:
                summary.units_current += 1
            else:
                summary.due[ledger.kind_of(unit, reason)] += 1
                rows = unit.planned.stop - unit.planned.start
                _say(console, f"{unit.name}: due, {reason} ({rows:,} rows)")
    due = sum(summary.due.values())
    _say(console, f"{due:,} due, {summary.units_current:,} whole and current; nothing was written (--dry-run)")
    return summary


def run_job(job: Job, options: JobOptions, console: Console) -> JobSummary:
    """Run all that is due and print the summary. Trouble with the job as a whole is in the summary's exit code.

    Raises `UserError` only for what is wrong before anything was touched.
    """
    info = check_target(job)
    job.target.require_writable()
    job.target.sweep()
    summary = JobSummary(job.stage.spec.name, job.target.url)
    start = time.perf_counter()
    try:
        with interruptible() as interruption:
            ledger = _read_ledger(job, info)
            _write_info(job, info)
            _run_due(job, options, console, summary, ledger, interruption)
        if summary.failed:
            summary.exit_code = ExitCode.UNITS_FAILED
        elif job.selection is not None:  # of a unit that failed nobody knows yet what it holds
            entries = open_dataset(job.target.url, job.stage.spec.schema.kind).entries
            summary.warnings = not_found(job.selection, entries, job.shards)
    except UserError as error:
        summary.exit_code, summary.stopped_by = error.exit_code, str(error)
    finally:
        summary.seconds = round(time.perf_counter() - start, 3)
        job.target.sweep()
    if summary.units_done or summary.failed or summary.stopped_by:
        _record_run(job, summary)
    summary.print(console)
    return summary


def _run_due(
    job: Job, options: JobOptions, console: Console, summary: JobSummary, ledger: Ledger, interruption: Interruption
) -> None:
    executor = _executor(options)
    with Progress(console, summary, lambda: executor.rows_in_flight) as progress:
        units = _due_units(job, ledger, summary, progress)
        outcomes = executor.run(job.stage, job.target, units)
        try:
            for outcome in outcomes:
                interruption.check()
                if isinstance(outcome, UnitDone):
                    summary.add(outcome.entry)
                    _guard(summary, options)
                elif outcome.fatal is not None:
                    if outcome.trace:
                        _say(console, outcome.trace)
                    failure = UserError(outcome.reason)
                    failure.exit_code = outcome.fatal
                    raise failure
                else:
                    summary.fail(outcome)
                    _say(console, f"{outcome.unit.name}: set aside, {outcome.reason}", style="red")
                    if outcome.trace:
                        _say(console, outcome.trace, style="dim")
        finally:
            # Closed here, and not whenever they are collected: first the actors end, then the threads that read ahead.
            for generator in (outcomes, units, job.plans):
                if isinstance(generator, Generator):
                    generator.close()
    _guard(summary, options, at_end=True)


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, highlight=False, markup=False)


def _executor(options: JobOptions) -> Executor:
    if not options.use_ray:
        return InlineExecutor(options.attempts)
    prepare_ray_environment(options.ray_address)
    from curation.execution.ray_pool import RayExecutor, RayOptions  # only now: Ray reads its environment at import

    pool = RayOptions(options.workers, options.cpus_per_worker, options.gpus_per_worker, options.ray_address)
    return RayExecutor(pool, options.attempts)


def _due_units(job: Job, ledger: Ledger, summary: JobSummary, progress: Progress) -> Iterator[Unit]:
    """The units that must be made, in order; keeps plan.json and the counts up to date on the way."""
    before = read_plan(job.target.url)
    shards = tuple(sorted({*before.shards, *job.shards}))
    planned: list[PlannedUnit] = []
    made = ledger.by_shard()
    if shards != before.shards:
        job.target.write_text(PLAN_FILE, to_json(PlanRecord(shards, before.units)))
    due, moved = 0, False
    for plan in job.plans:
        planned += [unit.planned for unit in plan.units]
        if _take_away_outdated(job.target, ledger, made.get(plan.shard, ()), plan, summary) and not moved:
            # Until this job ends, readers are told that shards which may have changed too have not been read yet.
            moved = True
            _write_plan(job, planned)
        for unit in plan.units:
            reason = ledger.why_due(unit)
            if reason is None:
                summary.units_current += 1
                continue
            summary.due[ledger.kind_of(unit, reason)] += 1
            due += 1
            progress.rows_due += unit.planned.stop - unit.planned.start
            yield unit
    progress.units_due = due
    _write_plan(job, planned)


def _write_plan(job: Job, planned: Sequence[PlannedUnit]) -> None:
    """Put `planned` into plan.json in place of all units of the job's shards. The others are those that it has now: a
    driver of other shards may have written since this one began."""
    before, ours = read_plan(job.target.url), frozenset(job.shards)
    units = [*(unit for unit in before.units if unit.shard not in ours), *planned]
    record = PlanRecord(
        tuple(sorted({*before.shards, *ours})),
        tuple(sorted(units, key=lambda unit: (unit.shard, unit.start, unit.name))),
    )
    if record != before:
        job.target.write_text(PLAN_FILE, to_json(record))


def _take_away_outdated(
    target: Target, ledger: Ledger, made: Sequence[LedgerEntry], plan: ShardPlan, summary: JobSummary
) -> bool:
    """Take away what was made from rows that the shard no longer has; whether there was any.

    Of units that will be made again only the ledger entry goes: from here on they do not exist for readers.
    """
    current = {unit.name: unit for unit in plan.units}
    found = False
    for entry in made:
        unit = current.get(entry.unit)
        if unit is not None and ledger.why_due(unit) not in {INPUT_CHANGED, ROWS_CHANGED, SELECTION_CHANGED}:
            continue
        found = True
        target.remove(ledger_path(entry.unit))
        if unit is None:
            for output in entry.outputs:
                target.remove(output.path)
            summary.units_removed += 1
    return found


def _guard(summary: JobSummary, options: JobOptions, *, at_end: bool = False) -> None:
    left_out = summary.rejected[RejectReason.NOT_SELECTED]
    rows, faulty = summary.rows_in - left_out, summary.rows_rejected - left_out
    if rows < _ROWS_BEFORE_GUARD and not at_end:
        return
    if faulty <= options.max_rejected * rows:
        return
    reasons = Counter({reason: n for reason, n in summary.rejected.items() if reason != RejectReason.NOT_SELECTED})
    reason, count = reasons.most_common(1)[0]
    raise GuardError(
        f"{faulty:,} of {rows:,} rows rejected, above --max-rejected "
        f"{options.max_rejected:.1%}; most often {reason} ({count:,}). See rejects/ in the output, or raise the limit."
    )


def _read_ledger(job: Job, info: DatasetInfo | None) -> Ledger:
    spec = job.stage.spec
    if info is None:
        return Ledger({}, {}, spec.fingerprint, "", "")
    found = read_ledger(job.target.url)
    current = [entry for entry in found.entries if entry.fingerprint == spec.fingerprint]
    damaged = damaged_outputs(job.target.fs, job.target.root, current)
    faults = {
        unit: f"{output.path} {'is missing' if size is None else f'has {size} bytes, expected {output.bytes}'}"
        for unit, (output, size) in damaged.items()
    }
    faults |= dict.fromkeys(found.damaged, "its ledger entry is damaged")
    changed = ", ".join(differing_keys(info.config, spec.config))
    return Ledger({e.unit: e for e in found.entries}, faults, spec.fingerprint, info.fingerprint, changed)


def _write_info(job: Job, before: DatasetInfo | None) -> None:
    spec = job.stage.spec
    identity = before.dataset_id if before else digest_of([spec.schema.kind, job.source, sorted(job.shards)])[:16]
    info = DatasetInfo(
        kind=spec.schema.kind,
        schema_version=spec.schema.version,
        stage=spec.name,
        config=spec.config,
        fingerprint=spec.fingerprint,
        source=job.source,
        dataset_id=identity,
        unit_rows=job.unit_rows,
        facts=spec.facts,
    )
    if before is None or to_json(before) != to_json(info):
        job.target.write_text(DATASET_FILE, to_json(info))


def _record_run(job: Job, summary: JobSummary) -> None:
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    try:
        job.target.write_text(f"{RUNS_DIR}/{moment}.json", canonical_json(summary.as_json()) + "\n")
    except UserError as error:  # a full disk must not hide what the summary has to say
        summary.stopped_by = summary.stopped_by or str(error)
        summary.exit_code = summary.exit_code or error.exit_code


def _holds_more(target: Target) -> bool:
    """Whether the directory holds anything but leftovers of a run that died before it wrote dataset.json."""
    if not target.fs.exists(target.root):
        return False
    target.fs.invalidate_cache(target.root)
    return any(not _is_ours(path) for path in target.fs.ls(target.root, detail=False))


def _is_ours(path: str) -> bool:
    """Whether a directory entry is a leftover of a run that died before it wrote dataset.json."""
    name = path.rstrip("/").rpartition("/")[2]
    return name in {"inputs", RUNS_DIR} or name.startswith(".")
