"""The noun statistics of the paper's Table 1, at the whole corpus or at any smaller number of captions.

The number of distinct nouns grows with the corpus (Heaps' law), so two corpora compare only at equal N. At m < N the
values are expectations over random sub-samples of m captions without replacement, by `curation.nouns.rarefaction`:

    DN(m) = Σ over nouns of 1 - P(absent),   VN(m) = Σ of P(tf > 10),   unseen(m) = Σ of P(tf = 1) / E[nouns]

where unseen is Good and Turing's estimate of the chance that the next noun is a new one. Each sum runs over the
distinct frequencies, so a corpus of millions of nouns takes milliseconds.
"""

from dataclasses import dataclass
from typing import Final

from curation.nouns.rarefaction import chance_above, chance_of_absence, chance_of_one
from curation.nouns.spectrum import Counted, Spectrum
from curation.nouns.summary import NounSummary
from schemas.errors import UserError

VALID_ABOVE: Final = 10  # a noun is valid if it appears more than this many times (PixArt-α, Table 1)


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


def noun_statistics(counts: NounSummary, column: str, counted: Counted, captions: int | None = None) -> NounStatistics:
    """The statistics of a caption column, over all its N captions or expected for `captions` = m of them.

    Raises `UserError` if the column was not counted, or m is not between 1 and N.
    """
    spectrum = spectrum_of(counts, column, counted)
    total = spectrum.captions
    if captions is None or captions == total:
        nouns = spectrum.occurrences
        unseen = spectrum.singles / nouns if nouns else 0.0
        return NounStatistics(
            column, counted, total, total, spectrum.distinct, spectrum.above(VALID_ABOVE), nouns, unseen
        )
    if not 1 <= captions < total:
        raise UserError(
            f"column {column}: no estimate at {captions:,} captions, only {total:,} were counted. "
            f"Rarefaction goes down, never up: ask for 1 to {total:,}."
        )
    return _expected(column, counted, spectrum, captions)


def spectrum_of(counts: NounSummary, column: str, counted: Counted) -> Spectrum:
    """The spectrum of a caption column. Raises `UserError` if it was not counted."""
    if column not in counts.columns:
        raise UserError(f"column {column} was not counted; counted are {', '.join(counts.columns) or 'none'}.")
    return counts.spectra[column, counted]


def top_nouns(counts: NounSummary, column: str, counted: Counted, limit: int) -> list[tuple[str, int]]:
    """The `limit` most frequent nouns (at most `spectrum.TOP_NOUNS`) and their occurrences; ties by name."""
    return list(counts.tops[column, counted][:limit])


def _expected(column: str, counted: Counted, spectrum: Spectrum, m: int) -> NounStatistics:
    total, share = spectrum.captions, m / spectrum.captions
    distinct = float((spectrum.df_nouns * (1 - chance_of_absence(spectrum.df, m, total))).sum())
    valid = float((spectrum.tf_nouns * chance_above(spectrum.tf, VALID_ABOVE, share)).sum())
    nouns = spectrum.occurrences * share
    singles = float((spectrum.tf_nouns * chance_of_one(spectrum.tf, share)).sum())
    return NounStatistics(column, counted, m, total, distinct, valid, nouns, singles / nouns if nouns else 0.0)
