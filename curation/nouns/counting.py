"""Exact noun counts that add up: a commutative monoid over caption columns.

A caption is counted once, in the partial counts of its unit; partial counts add up (`curation.nouns.merging`) in any
order and any grouping, and the sum equals the counts of all captions at once. Same counts, same tables, byte for byte.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from curation.nouns.tagger import Normalisation, TaggedCaption, Tagger, TaggerInfo
from schemas.tables import NOUN_TOTALS, NOUNS

NOUN_KEYS: Final = ("column", "noun")
TOTAL_KEYS: Final = ("column",)


@dataclass(frozen=True, slots=True)
class CountingRules:
    """What decides a count besides the captions. Counts made under different rules never mix."""

    tagger: TaggerInfo
    normalisation: Normalisation

    @property
    def spelt(self) -> str:
        """The rules in one line, for printing under every table that follows from them."""
        spelling = {Normalisation.LOWER: "the word in lower case", Normalisation.LEMMA: "the lemma in lower case"}
        return (
            f"tagger {self.tagger.name} {self.tagger.version} ({self.tagger.digest[:12]}), spaCy "
            f"{self.tagger.spacy_version}; a noun is {spelling[self.normalisation]} ({self.normalisation.value}), "
            f"tagged NOUN or PROPN, with at least one letter."
        )


@dataclass(frozen=True, slots=True)
class NounCounts:
    """Counts of one corpus or part of one.

    `nouns` has the columns of `schemas.tables.NOUNS`, a row a caption column and noun, sorted by both; `totals` those
    of `NOUN_TOTALS`, a row a caption column, sorted.
    """

    rules: CountingRules
    nouns: pa.Table
    totals: pa.Table

    def total(self, column: str, name: str) -> int:
        """The total `name` (captions, empty, tokens, nouns, propns) of a caption column; 0 if it was not counted."""
        return total_of(self.totals, column, name)


@dataclass(slots=True)
class _Noun:
    tf_noun: int = 0
    tf_propn: int = 0
    df_noun: int = 0
    df_propn: int = 0
    df: int = 0


@dataclass(slots=True)
class _Column:
    captions: int = 0
    empty: int = 0
    tokens: int = 0
    nouns: dict[str, _Noun] = field(default_factory=dict)


def total_of(totals: pa.Table, column: str, name: str) -> int:
    """The sum of `name` over the rows of `totals` (of `NOUN_TOTALS`) that are of a caption column; 0 without any."""
    rows = totals.filter(pc.equal(totals["column"], column))
    return int(pc.sum(rows[name]).as_py() or 0)


class NounCounter:
    """Counts captions one at a time; `counts` gives what was counted so far."""

    def __init__(self, rules: CountingRules) -> None:
        self._rules = rules
        self._columns: dict[str, _Column] = {}

    def add_empty(self, column: str, rows: int = 1) -> None:
        """Count rows whose caption is null or blank. With `rows` = 0 the column is merely known, with nothing in it."""
        self._columns.setdefault(column, _Column()).empty += rows

    def add_caption(self, column: str, caption: TaggedCaption) -> None:
        """Count one tagged caption."""
        counted = self._columns.setdefault(column, _Column())
        counted.captions += 1
        counted.tokens += caption.tokens
        seen: dict[str, int] = {}
        for noun in caption.nouns:
            entry = counted.nouns.setdefault(noun.noun, _Noun())
            if noun.proper:
                entry.tf_propn += 1
            else:
                entry.tf_noun += 1
            seen[noun.noun] = seen.get(noun.noun, 0) | (2 if noun.proper else 1)
        for name, kinds in seen.items():
            entry = counted.nouns[name]
            entry.df += 1
            entry.df_noun += kinds & 1
            entry.df_propn += kinds >> 1

    def counts(self) -> NounCounts:
        """What was counted so far."""
        nouns = [
            (column, noun, n.tf_noun, n.tf_propn, n.df_noun, n.df_propn, n.df)
            for column, counted in self._columns.items()
            for noun, n in counted.nouns.items()
        ]
        totals = [
            (
                column,
                counted.captions,
                counted.empty,
                counted.tokens,
                sum(n.tf_noun for n in counted.nouns.values()),
                sum(n.tf_propn for n in counted.nouns.values()),
            )
            for column, counted in self._columns.items()
        ]
        return NounCounts(self._rules, _table(nouns, NOUNS.arrow, 2), _table(totals, NOUN_TOTALS.arrow, 1))


def count_texts(
    counter: NounCounter, column: str, texts: Sequence[str | None], tagger: Tagger
) -> list[TaggedCaption | None]:
    """Tag `texts` and count them as captions of `column`; what was found in each.

    None, and text of white space alone, counts as empty and comes back as None.
    """
    present = [text is not None and bool(text.strip()) for text in texts]
    counter.add_empty(column, len(texts) - sum(present))
    tagged = iter(tagger.tag([text for text in compress(texts, present) if text is not None]))
    found = [next(tagged) if there else None for there in present]
    for caption in found:
        if caption is not None:
            counter.add_caption(column, caption)
    return found


def _table(rows: Sequence[tuple[str | int, ...]], schema: pa.Schema, keys: int) -> pa.Table:
    ordered = sorted(rows, key=lambda row: tuple(str(value).encode() for value in row[:keys]))
    columns = zip(*ordered, strict=True) if ordered else [()] * len(schema)
    arrays = [pa.array(values, type=f.type) for values, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
