"""Shards unlike the others: more than four robust standard deviations from the median shard.

For each figure of a shard (its share of rejects, of unusable captions and of each status, its mean length and the like)

    z = (x - median over shards) / max(1.4826 × median absolute deviation, sampling error of the shard)

1.4826 makes the median absolute deviation the standard deviation of a normal law. The sampling error, √(p(1 - p) / n)
of a share and s / √n of a mean with p and s over all shards, keeps small shards, and data so even that the deviation is
nearly zero, from being told as outliers for what chance alone does; p is at least one row of the shard, so that one row
is never enough.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from curation.report.shard_tallies import AVERAGED, Moments, ShardTally, usable_rows

SIGMAS: Final = 4.0
FEWEST_SHARDS: Final = 5
"""With fewer there is no telling which one is odd."""

_MAD_TO_SIGMA: Final = 1.4826


@dataclass(frozen=True, slots=True)
class Outlier:
    """One figure of one shard that is far from the others'. `sigmas` is signed; `rows` is what the figure is over."""

    shard: str
    figure: str
    value: float
    median: float
    sigmas: float
    rows: int


@dataclass(frozen=True, slots=True)
class Outliers:
    """All of them, farthest first; `shards` were compared, in `figures`. None were looked for below FEWEST_SHARDS."""

    shards: int
    figures: tuple[str, ...]
    found: tuple[Outlier, ...]


def find_outliers(tallies: Mapping[str, ShardTally]) -> Outliers:
    """The outliers among the shards."""
    if len(tallies) < FEWEST_SHARDS:
        return Outliers(len(tallies), (), ())
    looked, found = [], []
    for figure, values in _figures(tallies):
        if len(values) < FEWEST_SHARDS:
            continue
        looked.append(figure)
        found += _outliers_of(figure, values)
    found.sort(key=lambda one: (-abs(one.sigmas), one.shard, one.figure))
    return Outliers(len(tallies), tuple(looked), tuple(found))


@dataclass(frozen=True, slots=True)
class _Value:
    """A shard's figure, over how many rows, and the sampling error to expect of it."""

    value: float
    rows: int
    error: float


def _figures(tallies: Mapping[str, ShardTally]) -> Iterator[tuple[str, dict[str, _Value]]]:
    yield "share rejected", _shares(tallies, lambda one: one.rejected, lambda one: one.rows_in)
    yield "share unusable", _shares(tallies, lambda one: one.rows - usable_rows(one), lambda one: one.rows)
    for status in sorted({status for one in tallies.values() for status in one.statuses}):
        yield f"share {status}", _shares(tallies, partial(_rows_of, status), lambda one: one.rows)
    for column in AVERAGED:
        yield f"mean {column}", _means({name: one.moments[column] for name, one in tallies.items()})


def _rows_of(status: str, tally: ShardTally) -> int:
    return tally.statuses[status]


def _shares(
    tallies: Mapping[str, ShardTally], part: Callable[[ShardTally], int], whole: Callable[[ShardTally], int]
) -> dict[str, _Value]:
    rows = {name: whole(one) for name, one in tallies.items() if whole(one)}
    overall = sum(part(tallies[name]) for name in rows) / max(sum(rows.values()), 1)
    return {name: _Value(part(tallies[name]) / n, n, _share_error(overall, n)) for name, n in rows.items()}


def _share_error(overall: float, rows: int) -> float:
    """The sampling error of a share of `rows`. A share of less than one row of them counts as one row."""
    p = min(max(overall, 1 / rows), 1 - 1 / rows)
    return math.sqrt(max(p * (1 - p), 0) / rows)


def _means(moments: Mapping[str, Moments]) -> dict[str, _Value]:
    overall = Moments()
    for one in moments.values():
        overall.merge(one)
    return {
        name: _Value(one.mean, one.n, overall.deviation / math.sqrt(one.n))
        for name, one in moments.items()
        if one.mean is not None
    }


def _outliers_of(figure: str, values: Mapping[str, _Value]) -> list[Outlier]:
    median = statistics.median(one.value for one in values.values())
    spread = _MAD_TO_SIGMA * statistics.median(abs(one.value - median) for one in values.values())
    found = []
    for shard, one in values.items():
        sigma = max(spread, one.error)
        sigmas = (one.value - median) / sigma if sigma > 1e-12 else 0.0
        if abs(sigmas) > SIGMAS:
            found.append(Outlier(shard, figure, one.value, median, sigmas, one.rows))
    return found
