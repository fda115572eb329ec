"""Near-duplicates by the Hamming distance of 64-bit hashes, found by multi-index hashing (Norouzi et al. 2012).

Of two hashes within d bits, cut into m bands, some band differs in at most d // m bits. So for each band only pairs
that are that close there are compared, which of a million hashes are a few hundred million and not half a billion
times a thousand.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

_Hashes = npt.NDArray[np.uint64]
_Rows = npt.NDArray[np.int64]

_BITS: Final = 64
_PAIRS_AT_ONCE: Final = 1 << 22


def better_copies_exist(hashes: _Hashes, rank: _Rows, within: int) -> npt.NDArray[np.bool_]:
    """For each row whether a row of smaller `rank` that is itself kept lies within `within` bits of it.

    `rank` [N] is a permutation of 0 to N - 1, 0 the best. Rows are judged in that order, so that every row which goes
    has a row that stays within the distance; the order of the rows in the arrays does not matter.
    """
    order = np.argsort(rank)
    values, first, group = np.unique(hashes[order], return_index=True, return_inverse=True)
    # The best row of equal hashes speaks for all of them.
    dropped = _greedy(close_pairs(values, within), first)
    out = np.empty(len(hashes), np.bool_)
    out[order] = dropped[group] | (first[group] != np.arange(len(hashes)))
    return out


def close_pairs(values: _Hashes, within: int) -> tuple[_Rows, _Rows]:
    """All pairs i < j of the distinct `values` within `within` bits of one another, sorted."""
    bands = 3 if within <= 5 else 4
    found = [np.empty(0, np.int64)]
    edges = np.linspace(0, _BITS, bands + 1).astype(int)
    for low, high in pairwise(edges):
        width = int(high - low)
        parts = ((values >> np.uint64(low)) & np.uint64((1 << width) - 1)).astype(np.int64)
        for i, j in _candidates(parts, width, within // bands):
            close = np.bitwise_count(values[i] ^ values[j]) <= within
            i, j = i[close], j[close]
            found.append(np.minimum(i, j) * len(values) + np.maximum(i, j))
    pairs = np.unique(np.concatenate(found))
    return pairs // max(len(values), 1), pairs % max(len(values), 1)


def _candidates(parts: _Rows, width: int, radius: int) -> Iterator[tuple[_Rows, _Rows]]:
    """Every pair whose `parts` (numbers of `width` bits) differ in at most `radius` bits, once each, in batches."""
    order = np.argsort(parts, kind="stable")
    ordered = parts[order]
    starts = np.searchsorted(ordered, np.arange((1 << width) + 1))
    places = np.arange(len(parts))
    for flips in (bits for r in range(radius + 1) for bits in combinations(range(width), r)):
        mask = sum(1 << bit for bit in flips)
        other = ordered ^ mask
        begin, end = starts[other], starts[other + 1]
        if mask:  # each pair from its smaller side
            end = np.where(other > ordered, end, begin)
        else:
            begin = places + 1
        yield from _expand(order, begin, end)


def _expand(order: _Rows, begin: _Rows, end: _Rows) -> Iterator[tuple[_Rows, _Rows]]:
    """The pairs (order[p], order[q]) for every place p and q of begin[p] to end[p], in batches of bounded size."""
    counts = end - begin
    places = np.flatnonzero(counts)
    totals = np.cumsum(counts[places])
    start = 0
    while start < len(places):
        done = totals[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, done + _PAIRS_AT_ONCE, side="right")))
        here = places[start:stop]
        many = counts[here]
        left = np.repeat(here, many)
        offsets = np.arange(len(left)) - np.repeat(np.cumsum(many) - many, many)
        yield order[left], order[np.repeat(begin[here], many) + offsets]
        start = stop


def _greedy(pairs: tuple[_Rows, _Rows], rank: _Rows) -> npt.NDArray[np.bool_]:
    """Which nodes go: in order of `rank`, each that still stands takes away its neighbours of larger rank."""
    dropped = np.zeros(len(rank), np.bool_)
    i, j = pairs
    better, worse = np.where(rank[i] < rank[j], i, j), np.where(rank[i] < rank[j], j, i)
    by_rank = np.argsort(rank[better], kind="stable")
    better, worse = better[by_rank], worse[by_rank]
    edges = np.flatnonzero(np.diff(better, prepend=-1, append=-1))
    for start, stop in pairwise(edges.tolist()):
        if not dropped[better[start]]:
            dropped[worse[start:stop]] = True
    return dropped
