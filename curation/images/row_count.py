"""How many samples are in shards of which only some were ever read: a figure with an interval."""

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from curation.shards.container import count_samples, stamp_of
from curation.shards.shard_index import stored_index
from curation.shards.target import Target
from curation.shards.urls import shard_name
from curation.sources.base import Source
from schemas.selection import Selection

SAMPLED_SHARDS: Final = 4

_STUDENT_95: Final[Mapping[int, float]] = {2: 12.71, 3: 4.30, 4: 3.18}
"""Student's t at 97.5 % by the number of values, up to `SAMPLED_SHARDS`."""


@dataclass(frozen=True, slots=True)
class RowEstimate:
    """About `rows` samples, with 95 % from `low` to `high`; `basis` says in one line what that rests on."""

    rows: float
    low: float
    high: float
    basis: str


def estimate_rows(
    target: Target, source: Source, urls: Sequence[str], selection: Selection | None = None
) -> RowEstimate:
    """The samples of the shards `urls`, or those of them that are in `selection`.

    Rows are known of shards that `target` has an index of; of the others, the headers of up to `SAMPLED_SHARDS` are
    read and rows a byte carried over.
    """
    if selection is not None:
        selected = sum(len(selection.keys_of(shard_name(url))) for url in urls)
        return RowEstimate(selected, selected, selected, f"{selected:,} samples of the selection")
    known, unknown = _known_rows(target, source, urls)
    chosen = random.Random(0).sample(sorted(unknown), min(SAMPLED_SHARDS, len(unknown)))
    counted = {url: count_samples(url, source.container) for url in chosen}
    sampled_bytes, rest = sum(unknown[url] for url in chosen), sum(unknown.values())
    exact = sum(known.values()) + sum(counted.values())
    rest -= sampled_bytes
    density = sum(counted.values()) / sampled_bytes if sampled_bytes else 0.0
    rows = exact + density * rest
    spread = _spread([counted[url] / max(unknown[url], 1) for url in chosen], len(unknown) - len(chosen)) * rest
    basis = (
        f"{len(urls):,} shards: {len(known):,} indexed before, headers of {len(chosen):,} read now, "
        f"{len(urls) - len(known) - len(chosen):,} taken to hold as many rows a byte"
    )
    return RowEstimate(rows, max(exact, rows - spread), rows + spread, basis)


def size_text(count: float) -> str:
    """Bytes for a person: 1.23 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.3g} {unit}"
    return f"{count:,.0f} B"


def _known_rows(target: Target, source: Source, urls: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Rows of the shards that `target` has an index of, and bytes of the others."""
    rows: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for url in urls:
        index = stored_index(target, url, source.container)
        if index is not None:
            rows[url] = index.rows
        else:
            sizes[url] = stamp_of(url, source.container)[0]
    return rows, sizes


def _spread(values: Sequence[float], others: int) -> float:
    """Half the 95 % interval of the mean of `others` further values, of which `values` (at most four) are a sample."""
    if len(values) < 2 or not others:
        return 0.0
    return _STUDENT_95[len(values)] * statistics.stdev(values) * math.sqrt(1 / len(values) + 1 / others)
