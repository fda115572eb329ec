"""Curves of noun counts: how the vocabulary grows with captions, and how frequency falls with rank."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from curation.nouns.rarefaction import Ints
from curation.nouns.spectrum import Counted, Spectrum
from curation.nouns.statistics import NounStatistics, noun_statistics, spectrum_of
from curation.nouns.summary import NounSummary

_FIT: Final = (10, 10_000)  # ranks between which the slope is fitted: the head is grammar, the tail is rounding
_LEAST_FITTED: Final = 20
_POINTS: Final = 24


@dataclass(frozen=True, slots=True)
class RankFrequency:
    """Occurrences by rank, of all `captions`.

    `points` are (rank, occurrences) at ranks evenly spaced on a log scale; `slope` that of log occurrences over log
    rank, least squares over `fitted` (first and last rank): -1 is Zipf's law. None with fewer than 20 ranks.
    """

    column: str
    counted: Counted
    captions: int
    points: tuple[tuple[int, int], ...]
    slope: float | None
    fitted: tuple[int, int]


def growth_curve(
    counts: NounSummary, column: str, counted: Counted = Counted.BOTH, points: int = _POINTS
) -> list[NounStatistics]:
    """The statistics (DN, VN, unseen) at up to `points` captions evenly spaced on a log scale, the last being N.

    Each point is the exact expectation over random samples of that size, so the curve has no noise of its own.
    """
    captions = spectrum_of(counts, column, counted).captions
    return [noun_statistics(counts, column, counted, m) for m in log_spaced(captions, points)]


def rank_frequency(
    counts: NounSummary, column: str, counted: Counted = Counted.BOTH, points: int = 2 * _POINTS
) -> RankFrequency:
    """Occurrences by rank: the noun of rank r is the r-th most frequent one."""
    spectrum = spectrum_of(counts, column, counted)
    ranks = np.array(log_spaced(spectrum.distinct, points), dtype=np.int64)
    frequency = _frequency_at(spectrum, ranks)
    first, last = _FIT[0], min(_FIT[1], spectrum.distinct)
    fitted = np.arange(first, last + 1)
    slope = None
    if len(fitted) >= _LEAST_FITTED:
        slope = float(np.polyfit(np.log(fitted), np.log(_frequency_at(spectrum, fitted)), 1)[0])
    pairs = tuple((int(r), int(f)) for r, f in zip(ranks, frequency, strict=True))
    return RankFrequency(column, counted, spectrum.captions, pairs, slope, (first, last))


def log_spaced(last: int, points: int) -> list[int]:
    """Up to `points` whole numbers from 1 to `last`, evenly spaced on a log scale; none if `last` is 0."""
    return sorted({round(m) for m in np.geomspace(1, last, points).tolist()}) if last else []


def _frequency_at(spectrum: Spectrum, ranks: Ints) -> Ints:
    """Occurrences of the nouns of the given ranks (1 is the most frequent); [ranks]."""
    last_rank = np.cumsum(spectrum.tf_nouns[::-1])
    out: Ints = spectrum.tf[::-1][np.searchsorted(last_rank, ranks)]
    return out
