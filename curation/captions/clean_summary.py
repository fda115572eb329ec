"""What cleaning changed: the statuses of all rows before and after, and the flags, from the ledger alone."""

from collections import Counter

from curation.captions.clean_stage import FLAG, STATUS_AFTER, STATUS_BEFORE
from schemas.reading import Dataset
from schemas.status import CaptionStatus


def status_table(cleaned: Dataset) -> list[str]:
    """Lines of the table of statuses and flags over all whole units of a cleaned dataset."""
    counts: Counter[str] = Counter()
    for entry in cleaned.entries:
        counts.update(entry.counts)
    rows = sum(entry.rows_kept for entry in cleaned.entries)
    lines = [f"{'status':20}{'before':>14}{'':>8}{'after':>14}"]
    for status in CaptionStatus:
        before, after = counts[f"{STATUS_BEFORE} {status.value}"], counts[f"{STATUS_AFTER} {status.value}"]
        if before or after:
            lines.append(f"{status.value:20}{before:>14,}{_share(before, rows)}{after:>14,}{_share(after, rows)}")
    lines.append(f"{'all':20}{rows:>14,}{'':>8}{rows:>14,}")
    flags = {name.removeprefix(f"{FLAG} "): n for name, n in counts.items() if name.startswith(f"{FLAG} ")}
    lines += [f"flag {name:29}{'':8}{n:>14,}{_share(n, rows)}" for name, n in sorted(flags.items())]
    return lines


def _share(count: int, rows: int) -> str:
    return f"{count / rows:>8.2%}" if rows else f"{'':>8}"
