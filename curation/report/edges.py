"""The edge of a filter: how many rows a threshold keeps, and those just kept and just dropped, to judge it by."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.report.chosen import Floats, MeasuredSample, Nearest
from curation.report.samples import SampleIds
from curation.select.tables import DERIVED, derive

EDGE_SAMPLES: Final = 16


@dataclass(frozen=True, slots=True)
class Threshold:
    """A filter on one measure: rows from `least` to `most` (both included) are kept, or, of a measure in words, those
    that are one of `words` (`keep` False: none of them). `why` says where it comes from. Captions of fewer than
    `min_words` words are not judged."""

    measure: str
    label: str
    why: str
    least: float | None = None
    most: float | None = None
    min_words: int = 0
    words: tuple[str, ...] = ()
    keep: bool = True

    @property
    def spelt(self) -> str:
        """The condition as words."""
        if self.words:
            return f"{self.label} {'in' if self.keep else 'not in'} {', '.join(self.words)}"
        bounds = [f"at least {self.least:g}"] if self.least is not None else []
        bounds += [f"at most {self.most:g}"] if self.most is not None else []
        return f"{self.label} {' and '.join(bounds)}"


@dataclass(frozen=True, slots=True)
class Edge:
    """What a threshold does. `unknown` rows have no value or are not judged; the samples are those nearest to the
    limit, nearest first."""

    threshold: Threshold
    kept: int
    dropped: int
    unknown: int
    just_kept: tuple[MeasuredSample, ...]
    just_dropped: tuple[MeasuredSample, ...]


@dataclass(slots=True)
class EdgePass:
    """Gathers the edge of one threshold while tables go by."""

    threshold: Threshold
    kept: int = 0
    dropped: int = 0
    unknown: int = 0
    _inside: Nearest = field(default_factory=lambda: Nearest(EDGE_SAMPLES))
    _outside: Nearest = field(default_factory=lambda: Nearest(EDGE_SAMPLES))

    def add(self, values: Floats, ids: SampleIds, table: Any) -> None:
        """Count one table; `values` [rows] of the measure, NaN where a row has none."""
        if self.threshold.min_words:
            values = np.where(table["n_words"].to_numpy() < self.threshold.min_words, np.nan, values)
        least, most = (1.0, None) if self.threshold.words else (self.threshold.least, self.threshold.most)
        room = np.full(len(values), np.inf)  # how far inside the limits; below zero outside
        if least is not None:
            room = np.minimum(room, values - least)
        if most is not None:
            room = np.minimum(room, most - values)
        known = ~np.isnan(values)
        inside = known & (room >= 0)
        outside = known & (room < 0)
        self.kept += int(inside.sum())
        self.dropped += int(outside.sum())
        self.unknown += int((~known).sum())
        self._inside.add(np.where(inside, room, np.nan), ids, table, values)
        self._outside.add(np.where(outside, -room, np.nan), ids, table, values)

    def edge(self) -> Edge:
        """What was gathered so far."""
        inside, outside = self._inside.kept(), self._outside.kept()
        return Edge(self.threshold, self.kept, self.dropped, self.unknown, inside, outside)


def measured(measure: str, table: Any) -> Floats:
    """The values of a numeric column of `table` (of lists, their lengths), or of what follows from its width and height
    (min_side, pixels, aspect), NaN where a row has none; [rows]."""
    column = derive(measure, table["width"], table["height"]) if measure in DERIVED else table[measure]
    if pa.types.is_list(column.type):
        column = pc.list_value_length(column)
    values = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    return np.round(values, 6)  # float32 columns: 0.2 is to be no more than 0.2


def in_words(threshold: Threshold, table: Any) -> Floats:
    """1 for each row of `table` whose word `threshold` keeps, 0 for the others, NaN without a word; [rows]."""
    column = table[threshold.measure]
    listed = pc.is_in(column, value_set=pa.array(threshold.words))
    kept = listed if threshold.keep else pc.invert(listed)
    return np.where(column.is_null().to_numpy(), np.nan, kept.to_numpy().astype(np.float64))
