"""What one pass over a captions dataset tells: statuses, lengths, examples, and which samples to show."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.report.balance import Balance, Example, LossTally
from curation.report.histogram import Distribution, Histogram
from curation.report.samples import sample_ids
from schemas.errors import DatasetError
from schemas.reading import Dataset
from schemas.status import USABLE_STATUSES
from schemas.tables import CAPTIONS

_COLUMNS: Final = [
    *("key", "shard", "raw_caption", "generated", "caption", "status", "flags", "finish_reason", "n_tokens"),
    "n_t5_tokens",
]
_WORD: Final = r"\S+"
_EXAMPLE_CHARACTERS: Final = 160
_USABLE: Final = pa.array(sorted(USABLE_STATUSES))


@dataclass(frozen=True, slots=True)
class ChosenSample:
    """A sample to show: the row of the captions dataset that tells about it."""

    shard: str
    key: str
    raw_caption: str | None
    generated: str
    caption: str
    status: str


@dataclass(frozen=True, slots=True)
class CaptionNumbers:
    """Statistics of a captions dataset. Words are runs of characters that are no white space.

    `raw_words` is over rows with a raw caption; `words` and `t5_tokens` over the cleaned captions of usable rows;
    `tokens` over all rows. `t5_unknown` counts usable rows without a T5 count.
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
    chosen: tuple[ChosenSample, ...]


@dataclass(slots=True)
class _Pass:
    """What is gathered while the tables of the units go by."""

    picked: int
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
    unusable: LossTally = field(default_factory=LossTally)
    lowest: list[tuple[int, ChosenSample]] = field(default_factory=list)

    def add(self, table: Any) -> None:
        """Count one unit's table."""
        self.rows += table.num_rows
        statuses = _counts(table["status"])
        self.statuses.update(statuses)
        self.flags.update(_counts(pc.list_flatten(table["flags"])))
        self.finish_reasons.update(_counts(table["finish_reason"]))
        self.tokens.add(table["n_tokens"].to_numpy())
        raw = table.filter(pc.greater(pc.utf8_length(pc.fill_null(table["raw_caption"], "")), 0))["raw_caption"]
        self.with_raw += len(raw)
        self.raw_words.add(_words(raw))
        usable = table.filter(pc.is_in(table["status"], _USABLE))
        self.words.add(_words(usable["caption"]))
        t5 = usable["n_t5_tokens"].drop_null()
        self.t5_unknown += usable.num_rows - len(t5)
        self.t5_tokens.add(t5.to_numpy())
        self._show_unusable(table, statuses)
        self._pick(table)

    def _show_unusable(self, table: Any, statuses: dict[str, int]) -> None:
        for status, rows in statuses.items():
            if status in USABLE_STATUSES:
                continue
            self.unusable.add(status, rows)
            if self.unusable.wanted(status):
                for row in table.filter(pc.equal(table["status"], status)).slice(0, 5).to_pylist():
                    detail = _shortened(row["generated"])
                    self.unusable.show(status, Example(row["shard"], row["key"], detail))

    def _pick(self, table: Any) -> None:
        """Keep the samples with the lowest ids seen so far."""
        ids = sample_ids(table)
        few = np.argsort(ids, kind="stable")[: self.picked]
        if len(self.lowest) == self.picked:
            few = few[ids[few] < self.lowest[-1][0]]
        names = ["shard", "key", "raw_caption", "generated", "caption", "status"]
        rows = table.select(names).take(few).to_pylist()
        found = [(int(ids[i]), ChosenSample(**row)) for i, row in zip(few, rows, strict=True)]
        self.lowest = sorted([*self.lowest, *found], key=lambda pair: pair[0])[: self.picked]


def read_captions(dataset: Dataset, pictures: int) -> tuple[CaptionNumbers, Balance]:
    """The statistics of `dataset`, with `pictures` samples chosen to be shown, and its balance readable = usable + not.

    The choice is by the lowest hash of shard and key: the same for the same samples, however they are cut into units.
    Raises `DatasetError` if the tables hold other rows than the ledger says.
    """
    seen = _Pass(pictures)
    for table in dataset.tables(CAPTIONS, _COLUMNS):
        seen.add(table)
    kept = sum(entry.rows_kept for entry in dataset.entries)
    if seen.rows != kept:
        raise DatasetError(
            f"{dataset.url}: the ledger counts {kept:,} rows, the tables hold {seen.rows:,}. Remove the dataset and "
            f"run pipelines.{dataset.info.stage} again."
        )
    usable = sum(seen.statuses[status] for status in USABLE_STATUSES)
    numbers = CaptionNumbers(
        rows=seen.rows,
        usable=usable,
        with_raw=seen.with_raw,
        statuses=_ranked(seen.statuses),
        flags=_ranked(seen.flags),
        finish_reasons=_ranked(seen.finish_reasons),
        raw_words=seen.raw_words.distribution(),
        words=seen.words.distribution(),
        tokens=seen.tokens.distribution(),
        t5_tokens=seen.t5_tokens.distribution(),
        t5_unknown=seen.t5_unknown,
        chosen=tuple(sample for _, sample in seen.lowest),
    )
    return numbers, Balance("usable", dataset.url, seen.rows, usable, seen.unusable.losses())


def _counts(column: Any) -> dict[str, int]:
    return {item["values"]: item["counts"] for item in pc.value_counts(column).to_pylist()}


def _ranked(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _words(column: Any) -> Any:
    return pc.count_substring_regex(column, pattern=_WORD).to_numpy()


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _EXAMPLE_CHARACTERS else line[: _EXAMPLE_CHARACTERS - 1] + "…"
