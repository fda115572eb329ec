"""Expectations at m of N captions, drawn at random without replacement (rarefaction).

P(absent)  = C(N - df, m) / C(N, m)               exact: none of a noun's df captions is drawn    (Hurlbert 1971)
P(tf > t)  = 1 - Σ k=0..t of Binomial(k; tf, m/N)  exact but where a noun repeats within a caption
P(tf = 1)  = Binomial(1; tf, m/N)
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_SERIES_FROM: Final = 32  # Stirling's series with two terms is exact to 1e-11 from here on


def chance_of_absence(df: Ints, m: int, total: int) -> Floats:
    """The chance that none of a noun's `df` captions is among `m` of `total`, for each df; 0 < m < total."""
    out = np.zeros(len(df))
    rest = total - m - df
    far = rest >= _SERIES_FROM
    out[far] = np.exp(_log_falling_difference(df[far].astype(np.float64), float(total), float(total - m)))
    near = (rest >= 0) & ~far
    out[near] = [_by_log_gamma(int(n), m, total) for n in df[near]]
    return out


def chance_above(tf: Ints, threshold: int, share: float) -> Floats:
    """P(Binomial(tf, share) > threshold), for each tf; 0 < share < 1."""
    below = np.zeros(len(tf))
    term = np.exp(tf * math.log1p(-share))
    for k in range(threshold + 1):
        below += term
        term = term * (tf - k) / (k + 1) * (share / (1 - share))
    return np.clip(1 - below, 0, 1)


def chance_of_one(tf: Ints, share: float) -> Floats:
    """P(Binomial(tf, share) = 1), for each tf; 0 < share < 1."""
    out: Floats = tf * share * np.exp((tf - 1) * math.log1p(-share))
    return out


def _by_log_gamma(df: int, m: int, total: int) -> float:
    return math.exp(
        math.lgamma(total - df + 1)
        - math.lgamma(total - df - m + 1)
        - math.lgamma(total + 1)
        + math.lgamma(total - m + 1)
    )


def _log_falling_difference(df: Floats, high: float, low: float) -> Floats:
    """log of low! / (low - df)! less log of high! / (high - df)!.

    Logarithms of factorials of 1e8 agree in all but their last digits, and their difference keeps no more than seven:
    too few for df of 1. So Stirling's series is arranged to take the logarithm of near-equal numbers nowhere.
    """

    def falling(x: float) -> Floats:  # log of x! / (x - df)!, less df * log(x)
        rest = x - df
        series = 1 / (12 * x) - 1 / (360 * x**3) - 1 / (12 * rest) + 1 / (360 * rest**3)
        out: Floats = -(rest + 0.5) * np.log1p(-df / x) - df + series
        return out

    scaled: Floats = df * math.log(low / high) + falling(low) - falling(high)
    return scaled
