"""What a selection takes and a finished job did not find: samples that would otherwise be missing without a word."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from schemas.dataset import LedgerEntry
from schemas.selection import Selection
from schemas.status import RejectReason

_NAMED: Final = 3


def not_found(selection: Selection, entries: Iterable[LedgerEntry], shards: Sequence[str]) -> list[str]:
    """A line for people on each way in which `selection` takes more than the units `entries` had.

    `shards` are those that the job was given; of others the dataset may have `entries` from before.
    """
    looked_at = Counter[str]()
    for entry in entries:
        looked_at[entry.shard] += entry.rows_in - entry.rejected.get(RejectReason.NOT_SELECTED, 0)
    given = {*shards, *looked_at}
    elsewhere, lacking = dict[str, int](), dict[str, int]()
    for shard in selection.shards():
        taken = len(selection.keys_of(shard))
        if shard not in given:
            elsewhere[shard] = taken
        elif taken > looked_at[shard]:
            lacking[shard] = taken - looked_at[shard]
    lines = []
    if lacking:
        lines.append(
            f"{sum(lacking.values()):,} of the {len(selection):,} selected samples are not in their shards "
            f"({_named(lacking)}). Was the selection made of other versions of these?"
        )
    if elsewhere:
        lines.append(
            f"{sum(elsewhere.values()):,} of the {len(selection):,} selected samples are of shards that were not given "
            f"({_named(elsewhere)}). Give them too, if they are to be made."
        )
    return lines


def _named(counts: dict[str, int]) -> str:
    first = ", ".join(f"{count:,} of {shard}" for shard, count in list(counts.items())[:_NAMED])
    more = len(counts) - _NAMED
    return f"{first}, and {more:,} more shards" if more > 0 else first
