"""Which nouns a caption column gained and lost against another, beyond chance.

The weighted log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn 2008, "Fightin' Words",
equations 16, 20 and 22). With y occurrences of a noun among n, before (b) and after (a), and the prior that both
columns draw from one vocabulary, alpha = 500 (y_b + y_a) / (n_b + n_a) of 500 pseudo-occurrences:

    delta    = log((y_a + alpha) / (n_a + 500 - y_a - alpha)) - log((y_b + alpha) / (n_b + 500 - y_b - alpha))
    variance = 1 / (y_a + alpha) + 1 / (y_b + alpha)
    z        = delta / sqrt(variance)

It compares shares of all nouns, so the columns need not have as many captions or as long ones. A noun counts as gained
or lost where |z| is above the two-sided 1 % bound over all nouns together (Bonferroni). Nouns of one picture come in
company, so z is somewhat larger than independent draws would make it: it ranks well, and its bound is a floor.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import pyarrow as pa

from curation.nouns.merging import Run, merge_sorted
from curation.nouns.rarefaction import Floats, Ints
from curation.nouns.spectrum import Counted, frequencies
from curation.nouns.statistics import spectrum_of
from curation.nouns.summary import NounSummary

_PRIOR: Final = 500.0
_LEVEL: Final = 0.01


@dataclass(frozen=True, slots=True)
class NounChange:
    """One noun: its occurrences before and after, the same per 1,000 captions, and z."""

    noun: str
    before: int
    after: int
    per_1000_before: float
    per_1000_after: float
    z: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two caption columns, their captions, and the nouns that changed most.

    `bound` is what |z| must exceed; `gained_nouns` and `lost_nouns` say how many do, `gained` and `lost` list the
    furthest of them, the furthest first.
    """

    before: str
    after: str
    counted: Counted
    captions_before: int
    captions_after: int
    bound: float
    gained_nouns: int
    lost_nouns: int
    gained: tuple[NounChange, ...]
    lost: tuple[NounChange, ...]


def compare_columns(
    counts: NounSummary,
    before: str,
    after: str,
    before_rows: Iterable[pa.Table],
    after_rows: Iterable[pa.Table],
    counted: Counted = Counted.BOTH,
    limit: int = 20,
) -> Comparison:
    """Compare caption column `after` with `before`.

    `before_rows` and `after_rows` are their rows of `schemas.tables.NOUNS`, in order of noun; of each one block is in
    memory. Raises `UserError` if a column was not counted.
    """
    old, new = spectrum_of(counts, before, counted), spectrum_of(counts, after, counted)
    # At most so many nouns are compared: those of both columns counted twice make the bound stricter by a hair.
    nouns = max(old.distinct + new.distinct, 1)
    bound = NormalDist().inv_cdf(1 - _LEVEL / (2 * nouns))
    gained, lost = _Furthest(limit), _Furthest(limit)
    runs = [_run(before_rows, counted, "before"), _run(after_rows, counted, "after")]
    for table in merge_sorted(runs, ("noun",)):
        y_before, y_after = table["before"].to_numpy(), table["after"].to_numpy()
        z = log_odds_z(y_before, y_after, old.occurrences, new.occurrences)
        gained.add(table, z, z > bound)
        lost.add(table, -z, z < -bound)

    def changes(found: "_Furthest", sign: int) -> tuple[NounChange, ...]:
        return tuple(
            NounChange(noun, b, a, 1000 * b / max(old.captions, 1), 1000 * a / max(new.captions, 1), sign * distance)
            for distance, noun, b, a in found.rows
        )

    return Comparison(
        before,
        after,
        counted,
        old.captions,
        new.captions,
        bound,
        gained.number,
        lost.number,
        changes(gained, 1),
        changes(lost, -1),
    )


def log_odds_z(before: Ints, after: Ints, all_before: int, all_after: int) -> Floats:
    """z of each noun, by the formula at the top of this file; above 0 where its share of all nouns has grown."""
    prior = _PRIOR * (before + after) / max(all_before + all_after, 1)
    odds_before = (before + prior) / (all_before + _PRIOR - before - prior)
    odds_after = (after + prior) / (all_after + _PRIOR - after - prior)
    out: Floats = np.log(odds_after / odds_before) / np.sqrt(1 / (after + prior) + 1 / (before + prior))
    return out


class _Furthest:
    """The `limit` rows with the largest distance, ties by noun, and how many qualified."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.number = 0
        self.rows: list[tuple[float, str, int, int]] = []

    def add(self, table: pa.Table, distance: Floats, qualified: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> None:
        self.number += int(qualified.sum())
        least = self.rows[-1][0] if len(self.rows) == self._limit else -math.inf
        (rows,) = np.nonzero(qualified & (distance > least))
        if len(rows):
            found = table.take(pa.array(rows)).to_pydict()
            here = zip(distance[rows].tolist(), found["noun"], found["before"], found["after"], strict=True)
            self.rows = sorted([*self.rows, *here], key=lambda row: -row[0])[: self._limit]


def _run(rows: Iterable[pa.Table], counted: Counted, name: str) -> Run:
    """(noun, before, after) of one column's rows, the other column's occurrences 0; nouns not `counted` left out."""
    for table in rows:
        tf = frequencies(table, counted)[0]
        zeros = np.zeros_like(tf)
        pair = {"before": tf, "after": zeros} if name == "before" else {"before": zeros, "after": tf}
        joined = pa.table({"noun": table["noun"], **pair})
        yield joined.filter(pa.array(tf > 0))
