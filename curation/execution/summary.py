"""What a job did, for people and for programs."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation.execution.run_unit import UnitFailed
from schemas.dataset import LedgerEntry
from schemas.errors import ExitCode
from schemas.status import RejectReason


@dataclass(slots=True)
class JobSummary:
    """Tallies of one run of one stage; rows are those of this run."""

    stage: str
    out: str
    units_done: int = 0
    units_current: int = 0  # found whole and current, so left alone
    units_removed: int = 0  # no longer in their shard
    rows_in: int = 0
    rows_kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    measures: dict[str, tuple[float, float]] = field(default_factory=dict)  # least and largest of a unit
    phases: dict[str, float] = field(default_factory=dict)
    due: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    outputs_bytes: int = 0
    exit_code: ExitCode = ExitCode.OK
    stopped_by: str = ""

    def add(self, entry: LedgerEntry) -> None:
        """Count a finished unit."""
        self.units_done += 1
        self.rows_in += entry.rows_in
        self.rows_kept += entry.rows_kept
        self.rejected.update(entry.rejected)
        self.counts.update(entry.counts)
        self.outputs_bytes += sum(output.bytes for output in entry.outputs)
        for name, value in entry.measures.items():
            low, high = self.measures.get(name, (value, value))
            self.measures[name] = min(low, value), max(high, value)
        for name, seconds in entry.run.phases.items():
            self.phases[name] = self.phases.get(name, 0.0) + seconds

    def fail(self, failure: UnitFailed) -> None:
        """Count a unit that was set aside."""
        self.failed[failure.unit.name] = failure.reason

    @property
    def rows_rejected(self) -> int:
        """Rows refused in this run."""
        return sum(self.rejected.values())

    @property
    def limited_by(self) -> str:
        """The phase that took the most time, as `name (share of all phases)`; empty if nothing was timed."""
        phases = dict(self.phases)  # the progress thread asks while the job adds to it
        total = sum(phases.values())
        if total <= 0:
            return ""
        name = max(phases, key=lambda phase: phases[phase])
        return f"{name} ({phases[name] / total:.0%} of the workers' time)"

    def as_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record["exit_code"] = int(self.exit_code)
        record["rows_rejected"] = self.rows_rejected
        record["limited_by"] = self.limited_by
        record["rows_per_second"] = round(self.rows_in / self.seconds, 3) if self.seconds else 0.0
        return {name: dict(value) if isinstance(value, dict) else value for name, value in record.items()}

    def print(self, console: Console) -> None:
        """The final table."""
        table = Table(
            title=f"pipelines.{self.stage}", title_justify="left", show_header=False, box=None, pad_edge=False
        )
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in self._lines():
            table.add_row(Text(name), Text(value))  # not markup: a reason may hold brackets
        console.print(table)

    def _lines(self) -> list[tuple[str, str]]:
        lines = [("output", self.out)]
        if not self.units_done and not self.failed and not self.stopped_by:
            lines.append(("units", f"nothing to do: all {self.units_current:,} are whole and current"))
            return [*lines, *(("warning", line) for line in self.warnings)]
        due = ", ".join(f"{n:,} {reason}" for reason, n in self.due.most_common())
        why = f" (were due: {due})" if due else ""
        lines.append(("units", f"{self.units_done:,} done, {self.units_current:,} already current{why}"))
        lines.append(("rows", f"{self.rows_in:,} in = {self.rows_kept:,} kept + {self.rows_rejected:,} rejected"))
        lines += [(f"  {reason}", f"{n:,}") for reason, n in self.rejected.most_common()]
        if self.rows_in > self.rejected[RejectReason.NOT_SELECTED] and not self.rows_kept:
            lines.append(
                ("warning", f"no row was kept. Is it the right input? Each row's reason is in {self.out}/rejects")
            )
        lines += [(name, f"{n:,}") for name, n in sorted(self.counts.items())]
        lines += [(name, f"{low:.6g} to {high:.6g} over units") for name, (low, high) in sorted(self.measures.items())]
        rate = f", {self.rows_in / self.seconds:,.1f} rows/s" if self.seconds else ""
        lines.append(("time", f"{self.seconds:,.1f} s{rate}"))
        if self.limited_by:
            lines.append(("limited by", self.limited_by))
        lines.append(("written", f"{self.outputs_bytes / 1e6:,.2f} MB"))
        lines += [(f"failed {name}", reason) for name, reason in sorted(self.failed.items())[:10]]
        if len(self.failed) > 10:
            lines.append(("failed", f"and {len(self.failed) - 10:,} more units, all in the run's JSON"))
        lines += [("warning", line) for line in self.warnings]
        if self.stopped_by:
            lines.append(("stopped", self.stopped_by))
        return lines
