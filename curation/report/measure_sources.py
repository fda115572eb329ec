"""Measures datasets as a source of the measures that filters ask for."""

from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from curation.report.chosen import Floats
from curation.report.joined import MeasureSource
from schemas.reading import Dataset
from schemas.tables import MEASURES

MEASURE_COLUMNS: Final = ("luma_mean", "luma_std", "sharpness")


def measures_source(dataset: Dataset) -> MeasureSource:
    """The columns of a measures dataset, and the numbers that its source had by name."""
    measures = {name: partial(_of_source, name) for name in _extra_names(dataset)}
    measures |= {name: partial(_column, name) for name in MEASURE_COLUMNS}
    return MeasureSource(dataset, MEASURES, "", (*MEASURE_COLUMNS, "extra"), measures)


def _extra_names(dataset: Dataset) -> frozenset[str]:
    """The names of the source's numbers, whichever samples have them."""
    names: set[str] = set()
    for table in dataset.tables(MEASURES, ["extra"]):
        for chunk in table["extra"].chunks:
            names.update(pc.unique(chunk.keys).to_pylist())
    return frozenset(names)


def _column(name: str, table: Any) -> Floats:
    return _floats(table[name])


def _of_source(name: str, table: Any) -> Floats:
    found = pc.map_lookup(table["extra"].combine_chunks(), query_key=pa.scalar(name), occurrence="first")
    return _floats(found)


def _floats(column: Any) -> Floats:
    values: Floats = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return values.round(6)
