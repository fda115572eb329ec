"""Which downloads there are, and which are due: not made yet, or with failed rows that are to be tried again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from curation.execution.plan import ShardPlan
from curation.execution.stage import Unit
from curation.ingest.metadata_plan import MetadataPlan, PlanSettings, make_plan, plan_path, seen_in, stored_plan
from curation.ingest.seen_urls import SeenUrls
from curation.ingest.stage import Retry, tried_again
from curation.shards.target import Target
from curation.shards.urls import shard_name
from schemas.dataset import LedgerEntry, PlannedUnit

FAILED_ROWS: Final = "failed rows are tried again"


def plan_downloads(
    target: Target,
    urls: Sequence[str],
    settings: PlanSettings,
    entries: Mapping[str, LedgerEntry],
    retry: Retry,
    *,
    store: bool = True,
) -> Iterator[ShardPlan]:
    """The units of the metadata files `urls`, in order; a file is read through (once) shortly before it is needed.

    `entries` are the units that were published before, by name; those with failures that `retry` takes are due again.
    Without `store`, files that were never planned come back as `unread`. Raises `UserError` for metadata that cannot be
    used.
    """
    seen: SeenUrls | None = None
    for url in urls:
        plan = stored_plan(target, url, settings)
        if plan is None and not store:
            yield ShardPlan(shard_name(url), (), unread=True)
            continue
        if plan is None:
            seen = seen_in(target) if seen is None else seen
            plan = make_plan(target, url, settings, seen)
        yield ShardPlan(shard_name(url), tuple(_units(target, shard_name(url), plan, settings, entries, retry)))


def _units(
    target: Target,
    part: str,
    plan: MetadataPlan,
    settings: PlanSettings,
    entries: Mapping[str, LedgerEntry],
    retry: Retry,
) -> Iterator[Unit]:
    for number, rows in enumerate(plan.units):
        start = number * settings.unit_rows
        planned = PlannedUnit(f"{part}-{number:05d}", part, start, start + rows.rows)
        entry = entries.get(planned.name)
        failed = entry is not None and any(tried_again(reason, retry) for reason in entry.rejected)
        yield Unit(planned, target.path(plan_path(part)), (plan.identity,), again=FAILED_ROWS if failed else "")
