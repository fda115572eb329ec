"""What `curation.nouns` finds in a nouns dataset, and how many nouns each caption has."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from curation.nouns.findings import NounFindings, Questions, find
from curation.nouns.stage import PER_IMAGE_DIR
from curation.report.chosen import Floats
from curation.report.histogram import Distribution, Histogram
from curation.report.joined import MeasureSource
from schemas.reading import Dataset
from schemas.tables import NOUNS_PER_IMAGE

RAW_COLUMN: Final = "raw_caption"


@dataclass(frozen=True, slots=True)
class PerCaption:
    """Nouns of each caption that is not empty: all of them, and each once."""

    nouns: Distribution
    distinct: Distribution


@dataclass(frozen=True, slots=True)
class NounNumbers:
    """The findings, and nouns per caption by column, raw captions first; empty where the dataset does not hold them."""

    findings: NounFindings
    per_caption: dict[str, PerCaption]

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption columns that were counted and have captions, raw ones first."""
        counts = self.findings.summary
        filled = [column for column in counts.columns if counts.total(column, "captions")]
        return tuple(sorted(filled, key=_raw_first))

    def as_json(self) -> dict[str, Any]:
        """The same record that `pipelines.nouns` prints, with the nouns per caption."""
        return self.findings.as_json() | {
            "per_caption": {
                c: {"nouns": p.nouns.as_json(), "distinct": p.distinct.as_json()} for c, p in self.per_caption.items()
            },
        }


def read_nouns(dataset: Dataset) -> NounNumbers:
    """The findings of all whole units of `dataset`."""
    return NounNumbers(find(dataset, Questions()), _per_caption(dataset))


def per_image_source(dataset: Dataset | None) -> MeasureSource | None:
    """The nouns of each picture's cleaned caption as measures; None where the dataset does not hold them."""
    if dataset is None or not _has_per_image(dataset):
        return None
    measures = {name: partial(_of_captions, name) for name in ("nouns", "propns", "tokens", "distinct")}
    return MeasureSource(dataset, NOUNS_PER_IMAGE, PER_IMAGE_DIR, ("column", *measures), measures)


def _has_per_image(dataset: Dataset) -> bool:
    return any(o.path.startswith(f"{PER_IMAGE_DIR}/") for entry in dataset.entries for o in entry.outputs)


def _of_captions(name: str, table: Any) -> Floats:
    """The numbers of the rows about cleaned captions; of the distinct nouns, how many."""
    values = pc.list_value_length(table[name]) if name == "distinct" else table[name]
    is_caption = pc.equal(table["column"], "caption").to_numpy()
    return np.where(is_caption, values.to_numpy().astype(np.float64), np.nan)


def _per_caption(dataset: Dataset) -> dict[str, PerCaption]:
    """By column. Rows without a caption are left out, so that the mean is nouns over captions."""
    histograms: defaultdict[str, tuple[Histogram, Histogram]] = defaultdict(lambda: (Histogram(), Histogram()))
    columns = ["column", "nouns", "propns", "tokens", "distinct"]
    for table in dataset.tables(NOUNS_PER_IMAGE, columns, PER_IMAGE_DIR):
        present = table.filter(pc.greater(table["tokens"], 0))
        for column in pc.unique(present["column"]).to_pylist():
            rows = present.filter(pc.equal(present["column"], column))
            nouns, distinct = histograms[column]
            nouns.add(pc.add(rows["nouns"], rows["propns"]).to_numpy())
            distinct.add(pc.list_value_length(rows["distinct"]).to_numpy())
    out = {}
    for column in sorted(histograms, key=_raw_first):
        all_of_them, each_once = (histogram.distribution() for histogram in histograms[column])
        if all_of_them is not None and each_once is not None:
            out[column] = PerCaption(all_of_them, each_once)
    return out


def _raw_first(column: str) -> tuple[bool, str]:
    return column != RAW_COLUMN, column
