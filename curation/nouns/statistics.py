"""The noun statistics of the paper's Table 1, at the whole corpus or at any smaller number of captions.

The number of distinct nouns grows with the corpus (Heaps' law), so two corpora compare only at equal N. At m < N the
values are expectations over random sub-samples of m captions without replacement:

    DN(m) = Σ over nouns of 1 - C(N - df, m) / C(N, m)          rarefaction, exact          (Hurlbert 1971)
    VN(m) = Σ over nouns of P(Binomial(tf, m / N) > 10)         exact but where a noun repeats within a caption
    unseen(m) = E[f1(m)] / E[n(m)]                              Good-Turing, f1 by the same binomial

Each sum runs over the distinct values of df or tf, so a corpus of millions of nouns takes milliseconds.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from curation.nouns.counting import NounCounts
from schemas.errors import UserError

VALID_ABOVE: Final = 10  # a noun is valid if it appears more than this many times (PixArt-α, Table 1)

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


class Counted(StrEnum):
    """Which tags count as nouns."""

    NOUN = "NOUN"
    PROPN = "PROPN"
    BOTH = "NOUN+PROPN"


@dataclass(frozen=True, slots=True)
class NounStatistics:
    """One row of the table. `captions` of `of_captions`; where they differ, the figures are expectations.

    `distinct` is DN, `valid` is VN, `nouns` the total, `unseen` the Good-Turing chance that the next noun is a new one.
    """

    column: str
    counted: Counted
    captions: int
    of_captions: int
    distinct: float
    valid: float
    nouns: float
    unseen: float

    @property
    def expected(self) -> bool:
        """Whether the figures are expectations over sub-samples instead of counts."""
        return self.captions != self.of_captions

    @property
    def valid_share(self) -> float:
        """VN / DN; 0 without nouns."""
        return self.valid / self.distinct if self.distinct else 0.0

    @property
    def per_caption(self) -> float:
        """Nouns per caption; 0 without captions."""
        return self.nouns / self.captions if self.captions else 0.0


def noun_statistics(counts: NounCounts, column: str, counted: Counted, captions: int | None = None) -> NounStatistics:
    """The statistics of a caption column, over all its N captions or expected for `captions` = m of them.

    Raises `UserError` if the column was not counted, or m is not between 1 and N.
    """
    if column not in counts.columns:
        raise UserError(f"column {column} was not counted; counted are {', '.join(counts.columns) or 'none'}.")
    total = counts.total(column, "captions")
    tf, df = _frequencies(counts, column, counted)
    if captions is None or captions == total:
        nouns, singles = int(tf.sum()), int((tf == 1).sum())
        unseen = singles / nouns if nouns else 0.0
        return NounStatistics(
            column, counted, total, total, int((tf > 0).sum()), int((tf > VALID_ABOVE).sum()), nouns, unseen
        )
    if not 1 <= captions < total:
        raise UserError(
            f"column {column}: no estimate at {captions:,} captions, only {total:,} were counted. "
            f"Rarefaction goes down, never up: ask for 1 to {total:,}."
        )
    return _expected(column, counted, tf, df, captions, total)


def growth_curve(counts: NounCounts, column: str, counted: Counted, points: int = 24) -> list[tuple[int, float]]:
    """(m, DN(m)) at up to `points` captions spaced evenly on a log scale, the last being N."""
    total = counts.total(column, "captions")
    if total == 0:
        return []
    sizes = sorted({round(m) for m in np.geomspace(1, total, points)})
    return [(m, noun_statistics(counts, column, counted, m).distinct) for m in sizes]


def top_nouns(counts: NounCounts, column: str, counted: Counted, limit: int) -> list[tuple[str, int]]:
    """The `limit` most frequent nouns and their occurrences; ties in alphabetical order."""
    rows = counts.of_column(column)
    tf = _sum_of(rows.column("tf_noun").to_numpy(), rows.column("tf_propn").to_numpy(), counted)
    order = np.argsort(-tf, kind="stable")[:limit]
    return [(noun, int(tf[i])) for i, noun in zip(order, rows["noun"].take(order).to_pylist(), strict=True) if tf[i]]


def _frequencies(counts: NounCounts, column: str, counted: Counted) -> tuple[_Ints, _Ints]:
    """tf and df of every noun of the column, 0 where it never occurs as `counted`; each [nouns]."""
    rows = counts.of_column(column)
    arrays = {name: rows[name].to_numpy() for name in ("tf_noun", "tf_propn", "df_noun", "df_propn", "df")}
    tf = _sum_of(arrays["tf_noun"], arrays["tf_propn"], counted)
    df = {Counted.NOUN: arrays["df_noun"], Counted.PROPN: arrays["df_propn"], Counted.BOTH: arrays["df"]}[counted]
    return tf, df


def _sum_of(noun: _Ints, propn: _Ints, counted: Counted) -> _Ints:
    return {Counted.NOUN: noun, Counted.PROPN: propn, Counted.BOTH: noun + propn}[counted]


def _expected(column: str, counted: Counted, tf: _Ints, df: _Ints, m: int, total: int) -> NounStatistics:
    df_values, df_nouns = np.unique(df[df > 0], return_counts=True)
    tf_values, tf_nouns = np.unique(tf[tf > 0], return_counts=True)
    chance = m / total
    distinct = float((df_nouns * (1 - _chance_of_absence(df_values, m, total))).sum())
    below = sum((_binomial(tf_values, k, chance) for k in range(VALID_ABOVE + 1)), np.zeros(len(tf_values)))
    valid = float((tf_nouns * np.clip(1 - below, 0, 1)).sum())
    nouns = float(tf.sum()) * chance
    singles = float((tf_nouns * _binomial(tf_values, 1, chance)).sum())
    return NounStatistics(column, counted, m, total, distinct, valid, nouns, singles / nouns if nouns else 0.0)


def _chance_of_absence(df: _Ints, m: int, total: int) -> _Floats:
    """C(N - df, m) / C(N, m): the chance that none of a noun's df captions is among m of N."""
    out = np.zeros(len(df))
    possible = df <= total - m
    rest = total - df[possible]
    out[possible] = np.exp(_log_gamma(rest + 1) - _log_gamma(rest - m + 1) - _log_choose_scale(total, m))
    return out


def _log_choose_scale(total: int, m: int) -> float:
    """log of N! / (N - m)!."""
    return math.lgamma(total + 1) - math.lgamma(total - m + 1)


def _binomial(n: _Ints, k: int, chance: float) -> _Floats:
    """P(Binomial(n, chance) = k) for each n; 0 < chance < 1."""
    out = np.zeros(len(n))
    possible = n >= k
    trials = n[possible]
    log_choose = _log_gamma(trials + 1) - math.lgamma(k + 1) - _log_gamma(trials - k + 1)
    out[possible] = np.exp(log_choose + k * math.log(chance) + (trials - k) * math.log1p(-chance))
    return out


def _log_gamma(values: _Ints) -> _Floats:
    return np.fromiter(map(math.lgamma, values.tolist()), dtype=np.float64, count=len(values))
