"""What each shard is like, in a few sums, so that a shard unlike the others can be found."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.dataset import LedgerEntry
from schemas.status import USABLE_STATUSES, RejectReason

AVERAGED: Final = ("n_words", "n_t5_tokens", "repeated_4grams", "compression", "mean_logprob")
"""Columns of the captions table whose mean over a shard is looked at."""


@dataclass(slots=True)
class Moments:
    """Number, sum and sum of squares of the values that a column has."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, column: Any) -> None:
        """Count the values of an Arrow column; nulls are none."""
        values = column.drop_null().cast(pa.float64()).to_numpy()
        self.n += len(values)
        self.total += float(values.sum())
        self.squares += float(np.square(values).sum())

    def merge(self, other: "Moments") -> None:
        """Add what another counted."""
        self.n, self.total, self.squares = self.n + other.n, self.total + other.total, self.squares + other.squares

    @property
    def mean(self) -> float | None:
        """The mean; None without values."""
        return self.total / self.n if self.n else None

    @property
    def deviation(self) -> float:
        """The standard deviation; 0 without values."""
        return max(self.squares / self.n - (self.total / self.n) ** 2, 0.0) ** 0.5 if self.n else 0.0


@dataclass(slots=True)
class ShardTally:
    """One shard: rows in and rejected by the ledger, rows by status and moments of columns by the tables."""

    rows_in: int = 0
    rejected: int = 0
    rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    moments: dict[str, Moments] = field(default_factory=lambda: {name: Moments() for name in AVERAGED})


@dataclass(slots=True)
class ShardTallies:
    """The tallies of all shards by name."""

    shards: dict[str, ShardTally] = field(default_factory=dict)

    def add_ledger(self, entries: Iterable[LedgerEntry]) -> None:
        """Count what went into the units, and what was refused; rows that were not selected are in neither."""
        for entry in entries:
            tally = self.shards.setdefault(entry.shard, ShardTally())
            left_out = entry.rejected.get(RejectReason.NOT_SELECTED, 0)
            tally.rows_in += entry.rows_in - left_out
            tally.rejected += sum(entry.rejected.values()) - left_out

    def add(self, table: Any) -> None:
        """Count the captions of one unit."""
        for shard in pc.unique(table["shard"]).to_pylist():
            rows = table.filter(pc.equal(table["shard"], shard))
            tally = self.shards.setdefault(shard, ShardTally())
            tally.rows += rows.num_rows
            for item in pc.value_counts(rows["status"]).to_pylist():
                tally.statuses[item["values"]] += item["counts"]
            for name, moments in tally.moments.items():
                moments.add(rows[name])


def usable_rows(tally: ShardTally) -> int:
    """Rows whose caption can be used."""
    return sum(tally.statuses[status] for status in USABLE_STATUSES)
