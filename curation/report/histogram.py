"""Exact histograms of whole numbers: memory grows with the number of distinct values, never with the rows."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PERCENTILES: Final = (1, 5, 25, 50, 75, 95, 99)


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram comes to. `counts` is rows by value, `percentiles` values by percent; both in order."""

    rows: int
    mean: float
    least: int
    most: int
    percentiles: Mapping[int, int]
    counts: Mapping[int, int]

    def share_above(self, limit: int) -> float:
        """Share of rows with a value above `limit`; 0 without rows."""
        return sum(n for value, n in self.counts.items() if value > limit) / self.rows if self.rows else 0.0

    def binned(self, width: int, bins: int) -> list[float]:
        """Share of rows in each of `bins` bins [i * width, (i + 1) * width); the last one takes all that is above."""
        rows = [0] * bins
        for value, n in self.counts.items():
            rows[min(value // width, bins - 1)] += n
        return [n / self.rows if self.rows else 0.0 for n in rows]

    def as_json(self) -> dict[str, Any]:
        """The distribution as plain values."""
        return {
            "rows": self.rows,
            "mean": round(self.mean, 3),
            "min": self.least,
            "max": self.most,
            "percentiles": {f"p{percent}": value for percent, value in self.percentiles.items()},
            "counts": {str(value): n for value, n in self.counts.items()},
        }


@dataclass(slots=True)
class Histogram:
    """Counts non-negative whole numbers as they pass by."""

    _counts: Counter[int] = field(default_factory=Counter)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count `values`, integers of any shape."""
        for value, n in zip(*np.unique(values, return_counts=True), strict=True):
            self._counts[int(value)] += int(n)

    def distribution(self) -> Distribution | None:
        """What was counted so far; None if nothing was."""
        if not self._counts:
            return None
        counts = dict(sorted(self._counts.items()))
        rows = sum(counts.values())
        mean = sum(value * n for value, n in counts.items()) / rows
        return Distribution(rows, mean, min(counts), max(counts), _percentiles(counts, rows), counts)


def _percentiles(counts: Mapping[int, int], rows: int) -> dict[int, int]:
    """The smallest value at or below which lie p percent of the rows (nearest rank), for each p."""
    out: dict[int, int] = {}
    below = 0
    waiting = list(PERCENTILES)
    for value, n in counts.items():
        below += n
        while waiting and below >= math.ceil(rows * waiting[0] / 100):
            out[waiting.pop(0)] = value
    return out
