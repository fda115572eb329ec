"""What one pass over a captions dataset tells: statuses, lengths, repetition, examples, and which samples to show."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.report.balance import Balance, Example, LossTally
from curation.report.chosen import CAPTION_COLUMNS, ChosenSample, Floats, Nearest
from curation.report.edges import Edge, EdgePass, Threshold, in_words, measured
from curation.report.histogram import Distribution, Histogram
from curation.report.joined import JoinedMeasures
from curation.report.outliers import Outliers, find_outliers
from curation.report.samples import SampleIds, sample_ids
from curation.report.shard_tallies import ShardTallies
from curation.report.words import count_words
from curation.report.worst import Worst, WorstPass
from schemas.errors import DatasetError
from schemas.reading import Dataset
from schemas.status import USABLE_STATUSES
from schemas.tables import CAPTIONS

HUNDREDTHS: Final = 100
"""`repetition` and `compression` are counted in hundredths, rounded down."""

RANDOM_SAMPLES: Final = 24

_EXAMPLE_CHARACTERS: Final = 160
_LARGEST_COMPRESSION: Final = 100.0
_USABLE: Final = pa.array(sorted(USABLE_STATUSES))


@dataclass(frozen=True, slots=True)
class CaptionNumbers:
    """Statistics of a captions dataset. Words are runs of characters that are no white
    space.

    `raw_words` is over rows with a raw caption; `words` and `t5_tokens` over the cleaned captions of usable rows;
    `tokens`, `repetition` (share of repeated 4-grams) and `compression` over all rows that have them, the last two in
    hundredths. `t5_unknown` counts usable rows without a T5 count.
    """

    rows: int
    usable: int
    with_raw: int
    statuses: dict[str, int]
    flags: dict[str, int]
    finish_reasons: dict[str, int]
    raw_words: Distribution | None
    words: Distribution | None
    tokens: Distribution | None
    t5_tokens: Distribution | None
    t5_unknown: int
    repetition: Distribution | None
    compression: Distribution | None


@dataclass(frozen=True, slots=True)
class CaptionFindings:
    """All that one pass gives: the numbers, the balance readable = usable + not, samples to show, odd shards."""

    numbers: CaptionNumbers
    usable: Balance
    random: tuple[ChosenSample, ...]
    worst: Worst
    edges: tuple[Edge, ...]
    outliers: Outliers


@dataclass(slots=True)
class _Numbers:
    rows: int = 0
    with_raw: int = 0
    t5_unknown: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    raw_words: Histogram = field(default_factory=Histogram)
    words: Histogram = field(default_factory=Histogram)
    tokens: Histogram = field(default_factory=Histogram)
    t5_tokens: Histogram = field(default_factory=Histogram)
    repetition: Histogram = field(default_factory=Histogram)
    compression: Histogram = field(default_factory=Histogram)

    def add(self, table: Any) -> None:
        self.rows += table.num_rows
        self.statuses.update(_counts(table["status"]))
        self.flags.update(_counts(pc.list_flatten(table["flags"])))
        self.finish_reasons.update(_counts(table["finish_reason"]))
        self.tokens.add(table["n_tokens"].to_numpy())
        raw = table.filter(pc.greater(pc.utf8_length(pc.fill_null(table["raw_caption"], "")), 0))["raw_caption"]
        self.with_raw += len(raw)
        self.raw_words.add(count_words(raw))
        usable = table.filter(pc.is_in(table["status"], _USABLE))
        self.words.add(count_words(usable["caption"]))
        t5 = usable["n_t5_tokens"].drop_null()
        self.t5_unknown += usable.num_rows - len(t5)
        self.t5_tokens.add(t5.to_numpy())
        self.repetition.add(_hundredths(table["repeated_4grams"]))
        self.compression.add(_hundredths(table["compression"]))

    def numbers(self) -> CaptionNumbers:
        return CaptionNumbers(
            rows=self.rows,
            usable=sum(self.statuses[status] for status in USABLE_STATUSES),
            with_raw=self.with_raw,
            statuses=_ranked(self.statuses),
            flags=_ranked(self.flags),
            finish_reasons=_ranked(self.finish_reasons),
            raw_words=self.raw_words.distribution(),
            words=self.words.distribution(),
            tokens=self.tokens.distribution(),
            t5_tokens=self.t5_tokens.distribution(),
            t5_unknown=self.t5_unknown,
            repetition=self.repetition.distribution(),
            compression=self.compression.distribution(),
        )


def read_captions(dataset: Dataset, thresholds: Sequence[Threshold], join: JoinedMeasures) -> CaptionFindings:
    """The findings of `dataset`, one unit in memory at a time; `join` knows the measures that other datasets hold.

    Raises `DatasetError` if the tables hold other rows than the ledger says.
    """
    numbers, unusable, tallies, worst = _Numbers(), LossTally(), ShardTallies(), WorstPass()
    random, edges = Nearest(RANDOM_SAMPLES), [EdgePass(one) for one in thresholds]
    tallies.add_ledger(dataset.entries)
    for table in dataset.tables(CAPTIONS, list(CAPTION_COLUMNS)):
        ids = sample_ids(table)
        numbers.add(table)
        tallies.add(table)
        random.add(np.zeros(table.num_rows), ids, table)
        worst.add(ids, table)
        for edge in edges:
            edge.add(_values(edge.threshold, join, ids, table), ids, table)
        _tally_unusable(unusable, table)
    kept = sum(entry.rows_kept for entry in dataset.entries)
    if numbers.rows != kept:
        raise DatasetError(
            f"{dataset.url}: the ledger counts {kept:,} rows, the tables hold {numbers.rows:,}. Remove the dataset and "
            f"run pipelines.{dataset.info.stage} again."
        )
    found = numbers.numbers()
    return CaptionFindings(
        numbers=found,
        usable=Balance("usable", dataset.url, found.rows, found.usable, unusable.losses()),
        random=random.samples(),
        worst=worst.worst(),
        edges=tuple(edge.edge() for edge in edges),
        outliers=find_outliers(tallies.shards),
    )


def _values(threshold: Threshold, join: JoinedMeasures, ids: SampleIds, table: Any) -> Floats:
    if threshold.words:
        return in_words(threshold, table)
    name = threshold.measure
    return join.values(name, ids, table) if join.holds(name) else measured(name, table)


def _tally_unusable(tally: LossTally, table: Any) -> None:
    for status, rows in _counts(table["status"]).items():
        if status in USABLE_STATUSES:
            continue
        tally.add(status, rows)
        if tally.wanted(status):
            for row in table.filter(pc.equal(table["status"], status)).slice(0, 5).to_pylist():
                tally.show(status, Example(row["shard"], row["key"], _shortened(row["generated"])))


def _counts(column: Any) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _hundredths(column: Any) -> Any:
    """Whole hundredths. The smallest amount added first keeps 0.2, which float32 cannot hold, from becoming 0.19."""
    values = np.minimum(column.drop_null().to_numpy(), _LARGEST_COMPRESSION)
    return np.floor(values.astype(np.float64) * HUNDREDTHS + 1e-4).astype(np.int64)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXAMPLE_CHARACTERS else line[: _EXAMPLE_CHARACTERS - 1] + "…"
