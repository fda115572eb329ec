"""Axes: from a value to a place between 0 and 1, and the round values to write beside it."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_STEPS: Final = (1, 2, 5, 10)
_SUFFIXES: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Scale:
    """From `low` to `high`, linear or (if both are above zero) logarithmic."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, about: int) -> list[float]:
        """Round values within the scale, about as many as asked for."""
        return _log_ticks(self.low, self.high, about) if self.log else _linear_ticks(self.low, self.high, about)


def linear(values: Sequence[float], *, from_zero: bool = False) -> Scale:
    """A scale that holds all `values`, with a little room above, and below unless it begins `from_zero`."""
    low, high = _apart(0.0 if from_zero else min(values), max(values))
    room = 0.04 * (high - low)
    return Scale(low if from_zero else low - room, high + room)


def logarithmic(values: Sequence[float]) -> Scale:
    """A logarithmic scale that holds all `values`, each above zero."""
    low, high = min(values), max(values)
    return Scale(low, high, log=True) if high > low else Scale(low / 2, high * 2, log=True)


def spell_short(value: float) -> str:
    """A tick's value in as few characters as can be: 1200000 as 1.2M."""
    for size, suffix in _SUFFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _apart(low: float, high: float) -> tuple[float, float]:
    """`low` and `high`, apart by something even where they are equal."""
    return (low, high) if high > low else (low - abs(low) * 0.5 - 0.5, high + abs(high) * 0.5 + 0.5)


def _linear_ticks(low: float, high: float, about: int) -> list[float]:
    rough = (high - low) / about
    if rough < sys.float_info.min:  # nothing between them that a label could tell apart
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in _STEPS if m * power >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, about: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:  # less than a decade: powers of ten alone would leave the axis empty
        return [tick for tick in _linear_ticks(low, high, about) if tick > 0]
    every = max(1, math.ceil((last - first) / about))
    return [10.0**power for power in range(first, last + 1, every)]
