"""Everything that one unit of work writes: its outputs, its rejects, and last its ledger entry.

The law of conservation is enforced here: each row that came in was either kept or refused, and no row twice; otherwise
nothing is published.
"""

import posixpath
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from curation.shards.sinks import ConservationError, TableSink, TarSink
from curation.shards.target import Target
from schemas.dataset import InputIdentity, LedgerEntry, OutputFile, PlannedUnit, RunFacts, ledger_path, rejects_path
from schemas.record import to_json
from schemas.status import RejectReason
from schemas.table import TableSchema
from schemas.tables import REJECTS


class UnitWriter:
    """Collects the outputs of `unit` under temporary names. Use as a context manager: leaving it without `commit`
    removes every trace."""

    def __init__(self, target: Target, unit: PlannedUnit, stage: str) -> None:
        self.unit = unit
        self._target, self._stage = target, stage
        self._sinks: dict[str, TableSink | TarSink] = {}
        self._keys: set[str] = set()
        self._kept = 0
        self._rejected: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._measures: dict[str, float] = {}
        self._reject_rows: list[dict[str, str]] = []
        self._carried: tuple[OutputFile, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # every sink is abandoned, even where another cannot be
            for sink in self._sinks.values():
                stack.callback(sink.abandon)

    @property
    def rows_done(self) -> int:
        """Rows kept or refused so far."""
        return self._kept + sum(self._rejected.values())

    def go_on(self, carried: Sequence[OutputFile]) -> None:
        """This unit goes on from an earlier one: `carried`, outputs of that, stay as they are beside the new ones.

        The rows in them are to be kept again by `keep`. New outputs need names that the earlier unit did not use, so
        that a kill at any moment leaves what is carried, and the ledger entry that names it, in place.
        """
        self._carried = tuple(carried)

    def table(self, path: str, schema: TableSchema, *, row_per_key: bool = True) -> TableSink:
        """Open the Parquet output `path`. With `row_per_key` it must end with exactly one row a kept key."""
        self._require_new(path)
        sink = TableSink(self._target, path, schema, row_per_key)
        self._sinks[path] = sink
        return sink

    def tar(self, path: str) -> TarSink:
        """Open the tar output `path`; it must end with exactly one member a kept key."""
        self._require_new(path)
        sink = TarSink(self._target, path)
        self._sinks[path] = sink
        return sink

    def keep(self, key: str) -> None:
        """Count the row of `key` as kept."""
        self._account(key)
        self._kept += 1

    def reject(self, key: str, reason: RejectReason, detail: str) -> None:
        """Count the row of `key` as refused and record why, in one line."""
        self._account(key)
        detail = " ".join(detail.encode(errors="backslashreplace").decode().split())
        self._rejected[reason.value] += 1
        self._reject_rows.append(
            {"key": key, "shard": self.unit.shard, "stage": self._stage, "reason": reason.value, "detail": detail}
        )

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a tally of the ledger entry."""
        self._counts[name] += amount

    def measure(self, name: str, value: float) -> None:
        """Set a figure of the ledger entry that does not add up over units."""
        self._measures[name] = value

    def commit(self, fingerprint: str, inputs: Sequence[InputIdentity], run: RunFacts) -> LedgerEntry:
        """Publish everything, the ledger entry last. Raises `ConservationError` if rows do not add up."""
        self._check_conservation()
        if self._reject_rows:
            self.table(rejects_path(self.unit.name), REJECTS, row_per_key=False).write(self._reject_rows)
        outputs = [*(self._carried or ()), *(self._finish(sink) for sink in self._sinks.values())]
        entry = LedgerEntry(
            unit=self.unit.name,
            shard=self.unit.shard,
            start=self.unit.start,
            stop=self.unit.stop,
            fingerprint=fingerprint,
            inputs=tuple(inputs),
            rows_in=self.unit.stop - self.unit.start,
            rows_kept=self._kept,
            rejected=dict(sorted(self._rejected.items())),
            counts=dict(sorted(self._counts.items())),
            outputs=tuple(sorted(outputs, key=lambda output: output.path)),
            run=run,
            measures=dict(sorted(self._measures.items())),
        )
        if self._carried is None:
            self._target.remove(ledger_path(self.unit.name))
        if not self._reject_rows:
            self._target.remove(rejects_path(self.unit.name))
        for sink in self._sinks.values():
            self._target.publish(sink.temporary, sink.path)
        self._target.write_text(ledger_path(self.unit.name), to_json(entry))
        return entry

    def _require_new(self, path: str) -> None:
        if path in self._sinks:
            raise ConservationError(f"{self.unit.name}: output {path} was opened twice")

    def _account(self, key: str) -> None:
        if key in self._keys:
            raise ConservationError(f"{self.unit.name}: key {key!r} was counted twice")
        self._keys.add(key)

    def _check_conservation(self) -> None:
        expected = self.unit.stop - self.unit.start
        if self.rows_done != expected:
            raise ConservationError(
                f"{self.unit.name}: {expected} rows in, but {self._kept} kept + {sum(self._rejected.values())} rejected"
            )

    def _finish(self, sink: TableSink | TarSink) -> OutputFile:
        output = sink.finish()
        kind = posixpath.splitext(output.path)[1]
        carried = sum(o.rows for o in self._carried or () if posixpath.splitext(o.path)[1] == kind)
        if sink.row_per_key and output.rows + carried != self._kept:
            raise ConservationError(
                f"{self.unit.name}: {self._kept} rows kept, but {output.rows} in {output.path} and {carried} carried on"
            )
        return output
