"""The noun counts of a nouns dataset, merged, and what `curation.nouns` makes of them."""

from dataclasses import dataclass
from typing import Any, Final

from curation.nouns.counting import CountingRules
from curation.nouns.render import table_record
from curation.nouns.stage import read_counts
from curation.nouns.statistics import Counted, NounStatistics, noun_statistics, top_nouns
from schemas.reading import Dataset

_TOP: Final = 20
_RAW: Final = "raw_caption"
_KINDS: Final = (Counted.BOTH, Counted.NOUN, Counted.PROPN)


@dataclass(frozen=True, slots=True)
class NounNumbers:
    """The table and the most frequent nouns.

    `whole` has a row a caption column and kind of noun, over all captions; `equal` the columns' NOUN+PROPN rows at
    `equal_captions`, the smallest number of captions among them, where they differ. `top` is (noun, occurrences) by
    column. Raw captions come first.
    """

    rules: CountingRules
    whole: tuple[NounStatistics, ...]
    equal: tuple[NounStatistics, ...]
    equal_captions: int
    empty: dict[str, int]
    top: dict[str, tuple[tuple[str, int], ...]]

    def as_json(self) -> dict[str, Any]:
        """The same record that `pipelines.nouns` prints, with the most frequent nouns."""
        record = table_record([*self.whole, *self.equal], self.rules)
        top = {column: [{"noun": noun, "occurrences": n} for noun, n in rows] for column, rows in self.top.items()}
        return record | {"empty": self.empty, "top": top}


def read_nouns(dataset: Dataset) -> NounNumbers | None:
    """The statistics of all whole units of `dataset`; None if nothing was counted."""
    counts = read_counts(dataset)
    columns = sorted(counts.columns, key=lambda name: (name != _RAW, name))
    if not columns:
        return None
    captions = {column: counts.total(column, "captions") for column in columns}
    fewest = min((n for n in captions.values() if n), default=0)
    larger = [column for column in columns if captions[column] > fewest > 0]
    return NounNumbers(
        rules=counts.rules,
        whole=tuple(noun_statistics(counts, c, kind) for c in columns for kind in _KINDS),
        equal=tuple(noun_statistics(counts, c, Counted.BOTH, fewest) for c in columns if captions[c]) if larger else (),
        equal_captions=fewest,
        empty={column: counts.total(column, "empty") for column in columns},
        top={column: tuple(top_nouns(counts, column, Counted.BOTH, _TOP)) for column in columns},
    )
