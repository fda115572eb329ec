"""Measures of a caption's picture that other datasets hold, met by shard and key, one shard in memory at a time."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from curation.report.chosen import CAPTION_COLUMNS, Floats
from curation.report.samples import SampleIds, sample_ids
from curation.select.tables import DERIVED
from schemas.reading import Dataset
from schemas.table import TableSchema


@dataclass(frozen=True, slots=True)
class MeasureSource:
    """A dataset whose tables hold measures: which tables, which columns of them to read besides shard and key, and how
    each measure follows from a table [rows], NaN where a row has none."""

    dataset: Dataset
    schema: TableSchema
    folder: str
    columns: tuple[str, ...]
    measures: Mapping[str, Callable[[Any], Floats]]


class JoinedMeasures:
    """The measures of several sources by name. Rows that a source does not have are NaN there."""

    def __init__(self, sources: Sequence[MeasureSource]) -> None:
        self._by_name = {name: source for source in sources for name in source.measures}
        self._shard = ""
        self._cached: dict[str, tuple[SampleIds, Floats]] = {}

    def holds(self, name: str) -> bool:
        """Whether there is such a measure."""
        return name in self._by_name

    def knows(self, name: str) -> bool:
        """Whether a filter can ask for `name`: such a measure, or a column of the captions."""
        return self.holds(name) or name in DERIVED or name in CAPTION_COLUMNS

    def values(self, name: str, ids: SampleIds, table: Any) -> Floats:
        """The measure `name` of each row of a captions table, whose sample ids are `ids`."""
        out = np.full(table.num_rows, np.nan)
        for shard in pc.unique(table["shard"]).to_pylist():
            known, values = self._of_shard(name, shard)
            if not len(known):
                continue
            places = np.minimum(np.searchsorted(known, ids), len(known) - 1)
            found = known[places] == ids
            out[found] = values[places[found]]
        return out

    def _of_shard(self, name: str, shard: str) -> tuple[SampleIds, Floats]:
        if shard != self._shard:
            self._shard, self._cached = shard, {}
        if name not in self._cached:
            self._cached[name] = _read(self._by_name[name], name, shard)
        return self._cached[name]


def _read(source: MeasureSource, name: str, shard: str) -> tuple[SampleIds, Floats]:
    entries = tuple(entry for entry in source.dataset.entries if entry.shard == shard)
    ids, values = [np.empty(0, np.uint64)], [np.empty(0)]
    columns = ["shard", "key", *source.columns]
    for table in dataclasses.replace(source.dataset, entries=entries).tables(source.schema, columns, source.folder):
        found = source.measures[name](table)
        present = ~np.isnan(found)
        ids.append(sample_ids(table)[present])
        values.append(found[present])
    all_ids, all_values = np.concatenate(ids), np.concatenate(values)
    order = np.argsort(all_ids, kind="stable")
    return all_ids[order], all_values[order]
