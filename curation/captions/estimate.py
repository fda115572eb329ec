"""What a captioning job will take, told from a short real run: a few pictures of several shards, captioned and judged.

Nothing of it is kept. The engine is the job's own, so its speed is measured and not guessed; only the job's start and
the end of each shard, where the batch runs empty, weigh more in a short run than in a long one.
"""

import dataclasses
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from curation.captions.stage import CaptionStage
from curation.execution.plan import plan_images
from curation.execution.run_unit import UnitFailed, run_unit
from curation.execution.stage import Unit
from curation.images.row_count import RowEstimate, estimate_rows, size_text
from curation.shards.shard_index import read_samples
from curation.shards.target import Target
from schemas.dataset import LedgerEntry
from schemas.errors import UserError
from schemas.selection import Selection
from schemas.status import USABLE_STATUSES, CaptionStatus, RejectReason

SAMPLED_PICTURES: Final = 128
_SAMPLED_SHARDS: Final = 8
_STUDENT_95: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36)
"""Student's t at 97.5 % for 2 to 8 values."""
_NORMAL_95: Final = 1.96
_LEFT_OUT: Final = RejectReason.NOT_SELECTED.value
_TRUNCATED: Final = (CaptionStatus.TRUNCATED, CaptionStatus.TRIMMED)


@dataclass(frozen=True, slots=True)
class CaptionEstimate:
    """A short run of `entries` (a unit each) and what it says of a job of `rows` pictures over `workers`."""

    rows: RowEstimate
    entries: tuple[LedgerEntry, ...]
    start_seconds: float
    workers: int
    on_gpu: bool

    @property
    def pictures(self) -> int:
        """Pictures that were captioned."""
        return sum(entry.rows_kept for entry in self.entries)

    @property
    def images_per_second(self) -> tuple[float, float, float]:
        """Of one worker: the figure, and its 95 % interval over the shards (the figure itself where only one was)."""
        rates = [entry.rows_kept / entry.run.seconds for entry in self.entries if entry.rows_kept]
        figure = self.pictures / sum(entry.run.seconds for entry in self.entries)
        if len(rates) < 2:
            return figure, figure, figure
        half = _STUDENT_95[len(rates) - 2] * statistics.stdev(rates) / math.sqrt(len(rates))
        return figure, max(figure - half, 0.0), figure + half

    def count(self, name: str) -> int:
        """A tally of the ledger over all units."""
        return sum(entry.counts.get(name, 0) for entry in self.entries)

    def _together(self, hours: float) -> str:
        if self.workers == 1:
            return ""
        return f"; {_duration(3600 * hours / self.workers)} with {self.workers} that do not get in each other's way"

    @property
    def lines(self) -> list[str]:
        """The estimate for a person."""
        rows, pictures, seconds = self.rows, self.pictures, sum(entry.run.seconds for entry in self.entries)
        rate, low, high = self.images_per_second
        refused = sum(count for e in self.entries for name, count in e.rejected.items() if name != _LEFT_OUT)
        kept = rows.rows * pictures / (pictures + refused)
        tokens = self.count("tokens") / pictures
        hours = [rows.rows / (each * 3600) if each else math.inf for each in (rate, high, low)]
        phases = _summed(self.entries)
        limit = max(phases, key=lambda name: phases[name])
        device = "GPU" if self.on_gpu else "worker"
        bytes_a_row = sum(o.bytes for e in self.entries for o in e.outputs if o.path.endswith(".parquet")) / pictures
        return [
            f"{rows.rows:,.0f} pictures ({rows.low:,.0f} to {rows.high:,.0f})",
            f"{rate:,.2f} images/s a {device} ({low:,.2f} to {high:,.2f}), {rate * tokens:,.0f} tokens/s, "
            f"{tokens:.1f} tokens a caption; {limit} takes {phases[limit] / sum(phases.values()):.0%} of the time",
            f"{_duration(3600 * hours[0])} of one {device} ({_duration(3600 * hours[1])} to "
            f"{_duration(3600 * hours[2])}){self._together(hours[0])}",
            f"{size_text(kept * bytes_a_row)} of captions, {bytes_a_row:,.0f} B a picture",
            f"truncated {_share(sum(self.count(f'status {s.value}') for s in _TRUNCATED), pictures)}, usable "
            f"{_share(sum(self.count(f'status {s.value}') for s in USABLE_STATUSES), pictures)}, rejected "
            f"{_share(refused, pictures + refused)}",
            f"from {pictures:,} pictures of {len(self.entries)} {'shard' if len(self.entries) == 1 else 'shards'}, "
            f"captioned in {seconds:.1f} s after {self.start_seconds:.1f} s of loading; {rows.basis}",
        ]


def estimate_captions(
    stage: CaptionStage,
    urls: Sequence[str],
    selection: Selection | None = None,
    *,
    workers: int = 1,
    on_gpu: bool = False,
    pictures: int = SAMPLED_PICTURES,
) -> CaptionEstimate:
    """Caption up to `pictures` of the shards `urls`, drawn alike from a few of them, in this process.

    Raises `UserError` if no picture of the drawn ones can be read, and whatever opening the engine raises.
    """
    rows = estimate_rows(stage.target, stage.source, urls, selection)
    with tempfile.TemporaryDirectory(prefix="latentmill-estimate-") as folder:
        short = dataclasses.replace(stage, target=Target(folder), canary_rows=0)
        units = list(_sampled_units(short, urls, selection, pictures))
        start = time.perf_counter()
        worker = short.open()
        started = time.perf_counter() - start
        entries = []
        try:
            for unit in units:
                done = run_unit(short, worker, short.target, unit, attempt=1)
                if isinstance(done, UnitFailed):
                    raise UserError(f"{unit.url}: {done.reason}. Nothing was estimated.")
                entries.append(done.entry)
        finally:
            worker.close()
    if not any(entry.rows_kept for entry in entries):
        raise UserError(f"none of the sampled pictures in {len(units)} shards can be read: {_reasons(entries)}.")
    return CaptionEstimate(rows, tuple(entries), started, workers, on_gpu)


def _sampled_units(
    stage: CaptionStage, urls: Sequence[str], selection: Selection | None, pictures: int
) -> Iterator[Unit]:
    """A unit for each of a few shards, of which it takes some rows, evenly spread."""
    draw = random.Random(0)
    chosen = sorted(draw.sample(list(urls), min(_SAMPLED_SHARDS, len(urls))))
    each = -(-pictures // len(chosen))
    for plan in plan_images(stage.target, chosen, stage.source.container, 0):
        for unit in plan.units:
            keys = [s.key for s in read_samples(stage.target, unit.url, unit.planned.start, unit.planned.stop)]
            if selection is not None:
                selected = selection.keys_of(plan.shard)
                keys = [key for key in keys if key in selected]
            step = max(len(keys) / each, 1.0)
            taken = frozenset(keys[int(step * number)] for number in range(min(each, len(keys))))
            if taken:
                yield dataclasses.replace(unit, selected=taken)


def _summed(entries: Sequence[LedgerEntry]) -> dict[str, float]:
    names = {name for entry in entries for name in entry.run.phases}
    return {name: sum(entry.run.phases.get(name, 0.0) for entry in entries) for name in sorted(names)}


def _reasons(entries: Sequence[LedgerEntry]) -> str:
    names = {name for entry in entries for name in entry.rejected if name != _LEFT_OUT}
    return ", ".join(sorted(names)) or "there are none"


def _share(count: int, total: int) -> str:
    """A share with its 95 % interval (Wilson), in percent."""
    z2 = _NORMAL_95**2
    share = count / total
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return f"{share:.1%} ({max(middle - half, 0.0):.1%} to {min(middle + half, 1.0):.1%})"


def _duration(seconds: float) -> str:
    if math.isinf(seconds):
        return "no end"
    if seconds >= 3600:
        return f"{seconds / 3600:,.2f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
