"""Samples to show, chosen while tables go by: the few with the lowest score, in memory bounded by the few.

Ties go to the sample with the lower hash of shard and key, so the same data shows the same samples, however it is cut
into units.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from curation.report.samples import SampleIds

SHOWN_COLUMNS: Final = (
    *("shard", "key", "width", "height", "raw_caption", "generated", "caption", "status", "n_words", "n_t5_tokens"),
    *("repeated_4grams", "compression", "mean_logprob", "error"),
)

CAPTION_COLUMNS: Final = (*SHOWN_COLUMNS, "flags", "finish_reason", "n_tokens", "n_prompt_tokens")
"""What is read of the captions table; a filter may ask for any of its numbers and words."""

Floats = npt.NDArray[np.float64]

_LONGEST_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class ChosenSample:
    """A sample to show: the row of the captions dataset that tells about it. Texts are cut at 4,000 characters."""

    shard: str
    key: str
    width: int
    height: int
    raw_caption: str | None
    generated: str
    caption: str
    status: str
    n_words: int
    n_t5_tokens: int | None
    repeated_4grams: float | None
    compression: float | None
    mean_logprob: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class MeasuredSample:
    """A sample, and the value for which it was chosen."""

    value: float
    sample: ChosenSample


@dataclass(slots=True)
class Nearest:
    """Keeps the `limit` rows with the lowest score of all tables that went by."""

    limit: int
    _kept: list[tuple[float, int, MeasuredSample]] = field(default_factory=list)

    def add(self, scores: Floats, ids: SampleIds, table: Any, values: Floats | None = None) -> None:
        """Look at a `pyarrow.Table` with SHOWN_COLUMNS; `scores` [rows], NaN for rows that are no candidates. `values`
        [rows] are what to tell of a row instead of its score."""
        candidates = np.flatnonzero(~np.isnan(scores))
        if len(self._kept) == self.limit:
            candidates = candidates[scores[candidates] <= self._kept[-1][0]]
        order = np.lexsort((ids[candidates], scores[candidates]))[: self.limit]
        if not len(order):
            return
        rows = candidates[order]
        told = scores if values is None else values
        found = [
            (float(scores[i]), int(ids[i]), MeasuredSample(float(told[i]), ChosenSample(**_shortened(row))))
            for i, row in zip(rows, table.select(list(SHOWN_COLUMNS)).take(rows).to_pylist(), strict=True)
        ]
        self._kept = sorted([*self._kept, *found], key=lambda one: one[:2])[: self.limit]

    def kept(self) -> tuple[MeasuredSample, ...]:
        """The rows, lowest score first."""
        return tuple(found for _, _, found in self._kept)

    def samples(self) -> tuple[ChosenSample, ...]:
        """The rows without their values."""
        return tuple(found.sample for _, _, found in self._kept)


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    return {k: _cut(v) if isinstance(v, str) and len(v) > _LONGEST_TEXT else v for k, v in row.items()}


def _cut(text: str) -> str:
    return f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"
