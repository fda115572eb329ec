"""Which units there are, and why each of them is due."""

import posixpath
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

from curation.execution.prefetch import map_ahead
from curation.execution.stage import Unit
from curation.shards.container import ContainerKind
from curation.shards.fingerprint import digest_of
from curation.shards.shard_index import ShardIndex, ensure_index, stored_index
from curation.shards.target import Target
from curation.shards.urls import shard_name
from schemas.dataset import SELECTION_INPUT, InputIdentity, LedgerEntry, PlannedUnit
from schemas.errors import UserError
from schemas.reading import Dataset
from schemas.selection import Selection

_SHARDS_AHEAD = 4

NOT_MADE: Final = "not made yet"
ROWS_CHANGED: Final = "its rows changed"
INPUT_CHANGED: Final = "input changed"
SELECTION_CHANGED: Final = "the selection changed"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The units of one shard, in order. `unread` marks a shard that a dry run has not looked into."""

    shard: str
    units: tuple[Unit, ...]
    unread: bool = False


def plan_images(
    target: Target, urls: Sequence[str], kind: ContainerKind, unit_rows: int, *, scan: bool = True
) -> Generator[ShardPlan, None, None]:
    """The units of image shards. A shard is read through (once in its life) shortly before its units are needed.

    Without `scan`, shards that were never read come back as `unread`.
    """

    def plan(url: str) -> ShardPlan:
        index = ensure_index(target, url, kind) if scan else stored_index(target, url, kind)
        if index is None:
            return ShardPlan(shard_name(url), (), unread=True)
        return ShardPlan(shard_name(url), tuple(_slices(url, index, unit_rows)))

    yield from map_ahead(plan, urls, threads=2, ahead=_SHARDS_AHEAD)


def plan_tables(dataset: Dataset) -> Generator[ShardPlan, None, None]:
    """One unit for each whole unit of `dataset`, reading that unit's Parquet output."""
    by_shard: dict[str, list[Unit]] = {}
    for entry in dataset.entries:
        (output,) = [o for o in entry.outputs if o.path == f"{entry.unit}.parquet"]
        identity = InputIdentity(f"{dataset.info.kind}/{output.path}", output.bytes, output.digest, output.digest)
        planned = PlannedUnit(entry.unit, entry.shard, 0, output.rows)
        url = posixpath.join(dataset.url, output.path)
        by_shard.setdefault(entry.shard, []).append(Unit(planned, url, (identity,)))
    for shard, units in by_shard.items():
        yield ShardPlan(shard, tuple(units))


def plan_selected(
    plans: Generator[ShardPlan, None, None], selection: Selection, shards: Sequence[str]
) -> Iterator[ShardPlan]:
    """`plans` (of `shards`) with the rows that `selection` leaves out marked to be refused.

    The selected keys of a shard are an input of its units, so another selection makes those units due whose shard it
    treats differently, and no others. Raises `UserError` if it takes nothing of any of the shards.
    """
    if not set(shards) & set(selection.shards()):
        raise UserError(
            f"the selection takes nothing of these {len(shards)} shards ({shards[0]}, ..). Was it made from others?"
        )
    return _plan_selected(plans, selection)


def _plan_selected(plans: Generator[ShardPlan, None, None], selection: Selection) -> Iterator[ShardPlan]:
    with closing(plans):
        for plan in plans:
            keys = selection.keys_of(plan.shard)
            identity = InputIdentity(SELECTION_INPUT, sum(map(len, keys)), digest_of(sorted(keys)), "")
            units = (replace(unit, inputs=(*unit.inputs, identity), selected=keys) for unit in plan.units)
            yield replace(plan, units=tuple(units))


def plan_files(files: Sequence[tuple[str, int, InputIdentity]]) -> Iterator[ShardPlan]:
    """One unit for each (url, rows, identity) of a plain file."""
    for url, rows, identity in files:
        name = shard_name(url)
        yield ShardPlan(name, (Unit(PlannedUnit(name, name, 0, rows), url, (identity,)),))


def _slices(url: str, index: ShardIndex, unit_rows: int) -> Iterator[Unit]:
    shard = shard_name(url)
    if unit_rows == 0:
        yield Unit(PlannedUnit(shard, shard, 0, index.rows), url, (index.identity,))
        return
    for number, start in enumerate(range(0, max(index.rows, 1), unit_rows)):
        stop = min(start + unit_rows, index.rows)
        yield Unit(PlannedUnit(f"{shard}-{number:05d}", shard, start, stop), url, (index.identity,))


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a dataset held when the job began, for telling what is due. `entries` and `faults` are by unit.

    `changed` says how the settings differ from the last run. `faults` are units whose files are not what the ledger
    says, with why.
    """

    entries: Mapping[str, LedgerEntry]
    faults: Mapping[str, str]
    fingerprint: str
    old_fingerprint: str
    changed: str

    def by_shard(self) -> Mapping[str, Sequence[LedgerEntry]]:
        """The entries of each shard."""
        found: defaultdict[str, list[LedgerEntry]] = defaultdict(list)
        for entry in self.entries.values():
            found[entry.shard].append(entry)
        return found

    def kind_of(self, unit: Unit, reason: str) -> str:
        """The kind of `reason`, for counting: a few words that name no file."""
        return "with missing or damaged files" if reason == self.faults.get(unit.name) else reason

    def why_due(self, unit: Unit) -> str | None:
        """Why `unit` must be made, in a few words; None if it is whole and current."""
        entry = self.entries.get(unit.name)
        if entry is None:
            return self.faults.get(unit.name, NOT_MADE)
        if entry.fingerprint != self.fingerprint:
            known = self.changed and entry.fingerprint == self.old_fingerprint
            return f"{self.changed} changed" if known else "made under other settings"
        if (entry.start, entry.stop) != (unit.planned.start, unit.planned.stop):
            return ROWS_CHANGED
        made_from, now = _digests(entry.inputs), _digests(unit.inputs)
        if made_from != now:
            others = (made_from.keys() | now.keys()) - {SELECTION_INPUT}
            same = all(made_from.get(name) == now.get(name) for name in others)
            return SELECTION_CHANGED if same else INPUT_CHANGED
        return self.faults.get(unit.name) or unit.again or None


def _digests(inputs: Sequence[InputIdentity]) -> dict[str, str]:
    return {identity.name: identity.digest for identity in inputs}
