"""The counts of a corpus of any size without its nouns: spectra, totals and the most frequent, from one pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.nouns.counting import CountingRules, total_of
from curation.nouns.spectrum import Counted, Spectrum, SpectrumBuilder


@dataclass(frozen=True, slots=True)
class NounSummary:
    """What `curation.nouns.statistics` needs of merged counts.

    `totals` has the columns of `schemas.tables.NOUN_TOTALS`, a row a caption column. `spectra` and `tops` have an entry
    for each of these columns and each kind; a top is (noun, occurrences), the most frequent first, ties by name.
    """

    rules: CountingRules
    totals: pa.Table
    spectra: Mapping[tuple[str, Counted], Spectrum]
    tops: Mapping[tuple[str, Counted], tuple[tuple[str, int], ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption columns that were counted."""
        return tuple(self.totals["column"].to_pylist())

    def total(self, column: str, name: str) -> int:
        """The total `name` (captions, empty, tokens, nouns, propns) of a caption column; 0 if it was not counted."""
        return total_of(self.totals, column, name)


def summarise(rules: CountingRules, totals: pa.Table, nouns: Iterable[pa.Table]) -> NounSummary:
    """The summary of merged counts. `nouns` are tables of `NOUNS`, together in order of column and noun, none twice."""
    builders = {(column, kind): SpectrumBuilder(kind) for column in totals["column"].to_pylist() for kind in Counted}
    for table in nouns:
        for column in pc.unique(table["column"]).to_pylist():
            rows = table.filter(pc.equal(table["column"], column))
            for kind in Counted:
                builders[column, kind].add(rows)
    spectra = {(c, kind): b.spectrum(total_of(totals, c, "captions")) for (c, kind), b in builders.items()}
    return NounSummary(rules, totals, spectra, {name: tuple(builder.top) for name, builder in builders.items()})
