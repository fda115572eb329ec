"""Where rows went: in = kept + rejected, for each stage, checked against the rejects tables row by row."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import DatasetError
from schemas.reading import Dataset
from schemas.tables import REJECTS

EXAMPLES: Final = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One sample, and one line about it."""

    shard: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class Loss:
    """Rows that a step did not keep, and why. `examples` are the first few."""

    reason: str
    rows: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """One step of the funnel. Raises `DatasetError` unless `rows_in` = `kept` + all losses."""

    step: str  # captions, usable, latents, text, nouns, joined
    where: str
    rows_in: int
    kept: int
    losses: tuple[Loss, ...]

    def __post_init__(self) -> None:
        if self.rows_in != self.kept + self.lost:
            raise DatasetError(
                f"{self.where}: {self.rows_in:,} rows in, but {self.kept:,} kept + {self.lost:,} lost at step "
                f"{self.step}. The dataset contradicts itself; remove it and run its stage again."
            )

    @property
    def lost(self) -> int:
        """Rows that were not kept."""
        return sum(loss.rows for loss in self.losses)


@dataclass(slots=True)
class LossTally:
    """Counts losses by reason and keeps the first few examples of each."""

    _rows: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, list[Example]] = field(default_factory=dict)

    def wanted(self, reason: str) -> bool:
        """Whether another example of `reason` is of use."""
        return len(self._examples.get(reason, ())) < EXAMPLES

    def add(self, reason: str, rows: int) -> None:
        """Count `rows` lost for `reason`."""
        self._rows[reason] += rows

    def show(self, reason: str, example: Example) -> None:
        """Keep `example` if it is among the first few of `reason`."""
        if self.wanted(reason):
            self._examples.setdefault(reason, []).append(example)

    @property
    def rows(self) -> dict[str, int]:
        """Rows by reason."""
        return dict(self._rows)

    def losses(self) -> tuple[Loss, ...]:
        """The losses, most frequent first."""
        order = sorted(self._rows.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Loss(reason, n, tuple(self._examples.get(reason, ()))) for reason, n in order if n)


def ledger_balance(dataset: Dataset, step: str) -> Balance:
    """The balance of all whole units of `dataset`, its losses with examples out of the rejects tables.

    Raises `DatasetError` if ledger and rejects tables disagree.
    """
    tally = LossTally()
    for table in dataset.tables(REJECTS, folder="rejects"):
        _tally_rejects(tally, table.to_pylist())
    told: Counter[str] = Counter()
    for entry in dataset.entries:
        told.update(entry.rejected)
    if {reason: n for reason, n in told.items() if n} != tally.rows:
        raise DatasetError(
            f"{dataset.url}: the ledger counts rejects {_spell(told.items())}, the rejects tables hold "
            f"{_spell(tally.rows.items())}. Remove the dataset and run pipelines.{dataset.info.stage} again."
        )
    rows_in, kept = (sum(getattr(e, name) for e in dataset.entries) for name in ("rows_in", "rows_kept"))
    return Balance(step, dataset.url, rows_in, kept, tally.losses())


def _tally_rejects(tally: LossTally, rows: Sequence[dict[str, str]]) -> None:
    for row in rows:
        tally.add(row["reason"], 1)
        tally.show(row["reason"], Example(row["shard"], row["key"], row["detail"]))


def _spell(rows: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{reason} {n:,}" for reason, n in sorted(rows)) or "none"
