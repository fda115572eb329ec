"""How many nouns occur how often: all that the statistics need of the nouns, in memory that does not grow with them.

The number of distinct nouns, valid ones, rarefaction, growth, rank and frequency and the unseen mass all follow from
this spectrum. It is small: k different frequencies need at least k² / 2 occurrences, so 3 billion nouns have fewer than
80,000 of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
import pyarrow as pa

from curation.nouns.rarefaction import Ints

TOP_NOUNS: Final = 1000  # remembered by name


class Counted(StrEnum):
    """Which tags count as nouns."""

    NOUN = "NOUN"
    PROPN = "PROPN"
    BOTH = "NOUN+PROPN"


@dataclass(frozen=True, slots=True)
class Spectrum:
    """`tf_nouns[i]` nouns occur `tf[i]` times; `df_nouns[i]` nouns occur in `df[i]` captions, of `captions`.

    `tf` and `df` ascend and are above 0.
    """

    captions: int
    tf: Ints
    tf_nouns: Ints
    df: Ints
    df_nouns: Ints

    @property
    def occurrences(self) -> int:
        """Nouns in all captions together."""
        return int((self.tf * self.tf_nouns).sum())

    @property
    def distinct(self) -> int:
        """Distinct nouns."""
        return int(self.tf_nouns.sum())

    @property
    def singles(self) -> int:
        """Nouns that occur once."""
        return int(self.tf_nouns[self.tf == 1].sum())

    def above(self, threshold: int) -> int:
        """Nouns that occur more than `threshold` times."""
        return int(self.tf_nouns[self.tf > threshold].sum())


def frequencies(rows: pa.Table, kind: Counted) -> tuple[Ints, Ints]:
    """tf and df of each row of a `schemas.tables.NOUNS` table, 0 where the noun never occurs as `kind`; each [rows]."""
    if kind is Counted.BOTH:
        return rows["tf_noun"].to_numpy() + rows["tf_propn"].to_numpy(), rows["df"].to_numpy()
    name = {Counted.NOUN: "noun", Counted.PROPN: "propn"}[kind]
    return rows[f"tf_{name}"].to_numpy(), rows[f"df_{name}"].to_numpy()


@dataclass(slots=True)
class SpectrumBuilder:
    """Gathers one caption column's spectrum of one kind, and its most frequent nouns, from rows in order of noun."""

    kind: Counted
    top: list[tuple[str, int]] = field(default_factory=list)
    _tf: dict[int, int] = field(default_factory=dict)
    _df: dict[int, int] = field(default_factory=dict)

    def add(self, rows: pa.Table) -> None:
        """Add rows of a `schemas.tables.NOUNS` table, which follow those added before."""
        tf, df = frequencies(rows, self.kind)
        for known, found in ((self._tf, tf), (self._df, df)):
            values, counts = np.unique(found[found > 0], return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                known[value] = known.get(value, 0) + count
        least = self.top[-1][1] if len(self.top) == TOP_NOUNS else 0
        (candidates,) = np.nonzero(tf > least)
        if len(candidates):
            names = rows["noun"].take(pa.array(candidates)).to_pylist()
            found_here = zip(names, tf[candidates].tolist(), strict=True)
            # Rows come in alphabetical order and the sort is stable, so ties stay in that order.
            self.top = sorted([*self.top, *found_here], key=lambda noun: -noun[1])[:TOP_NOUNS]

    def spectrum(self, captions: int) -> Spectrum:
        """What was gathered, as the spectrum of so many captions."""
        return Spectrum(captions, *_sorted_items(self._tf), *_sorted_items(self._df))


def _sorted_items(counts: Mapping[int, int]) -> tuple[Ints, Ints]:
    pairs = np.array(sorted(counts.items()), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
