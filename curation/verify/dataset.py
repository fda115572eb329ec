"""Everything that can be checked of one dataset by itself."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from curation.verify.features import FeatureCheck, FeatureTotals, check_null_text
from curation.verify.files import FEATURES, check_ledger, check_leftovers, check_outputs
from curation.verify.findings import Findings
from schemas.dataset import LedgerEntry
from schemas.errors import DatasetError
from schemas.reading import Dataset, open_dataset, read_info

_FAR: Final = (0.5, 2.0)
"""Standard deviation of scaled latents outside which the scaling factor is probably another VAE's."""


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """What a dataset holds, as far as it could be read. `measures` is the range over units of each figure; `dataset`
    has only the units whose tables are sound, and `damaged` names the shards of the others."""

    dataset: Dataset
    damaged: frozenset[str]
    url: str
    kind: str
    units: int
    rows_in: int
    rows_kept: int
    rows_rejected: int
    disk_bytes: int
    measures: dict[str, tuple[float, float]]
    features: FeatureTotals | None

    @property
    def statistics(self) -> dict[str, Any]:
        """The figures of the features as plain values: channels of latents, tokens of text."""
        if self.features is None:
            return {}
        common = {"members": self.features.members, "content_bytes": self.features.content_bytes}
        if self.kind == "latents":
            return common | {"channel_mean": self.features.channels.mean, "channel_std": self.features.channels.std}
        return common | {"tokens": self.features.tokens, "truncated": self.features.truncated}


def open_any(url: str) -> Dataset:
    """The dataset at `url`, of whichever kind."""
    info = read_info(url)
    if info is None:
        raise DatasetError(f"{url}: no dataset.json there, so no latentmill dataset. Check the path.")
    return open_dataset(url, info.kind)


def check_dataset(dataset: Dataset, findings: Findings, progress: Callable[[int, int], None]) -> DatasetReport:
    """Check ledger, files, and of feature datasets every member. `progress` is handed units done and all units.

    Holds one unit's list of members and one shard's keys in memory, whatever the size of the dataset.
    """
    kind = dataset.info.kind
    check_ledger(dataset, findings)
    check_leftovers(dataset, findings)
    features = FeatureCheck(dataset, findings) if kind in FEATURES else None
    entries = sorted(dataset.entries, key=lambda entry: (entry.shard, entry.unit))
    damaged: dict[str, LedgerEntry] = {}
    for number, entry in enumerate(entries):
        progress(number, len(entries))
        outputs = check_outputs(dataset, entry, findings)
        if not outputs.tables_sound:
            damaged[entry.unit] = entry
        elif features is not None and outputs.members is not None:
            features.unit(entry, outputs.members)
    progress(len(entries), len(entries))
    if kind == "text":
        check_null_text(dataset, findings)
    if not entries:
        findings.wrong("ledger", dataset.url, "no finished unit")
    if features is not None:
        _judge_channels(dataset, features.totals, findings)
    return DatasetReport(
        dataset=dataclasses.replace(dataset, entries=tuple(e for e in dataset.entries if e.unit not in damaged)),
        damaged=frozenset(entry.shard for entry in damaged.values()),
        url=dataset.url,
        kind=kind,
        units=len(entries),
        rows_in=sum(entry.rows_in for entry in entries),
        rows_kept=sum(entry.rows_kept for entry in entries),
        rows_rejected=sum(sum(entry.rejected.values()) for entry in entries),
        disk_bytes=sum(output.bytes for entry in entries for output in entry.outputs),
        measures=_measures(dataset),
        features=features.totals if features else None,
    )


def _judge_channels(dataset: Dataset, totals: FeatureTotals, findings: Findings) -> None:
    far = [i for i, std in enumerate(totals.channels.std) if totals.channels.count and not _FAR[0] <= std <= _FAR[1]]
    if far:
        findings.note(
            "statistics",
            dataset.url,
            f"the standard deviation of channels {far} is far from 1 after scaling by "
            f"{dataset.info.facts['scaling_factor']:g}; is that this VAE's scaling_factor?",
        )


def _measures(dataset: Dataset) -> dict[str, tuple[float, float]]:
    out: dict[str, tuple[float, float]] = {}
    for entry in dataset.entries:
        for name, value in entry.measures.items():
            low, high = out.get(name, (value, value))
            out[name] = min(low, value), max(high, value)
    return out
