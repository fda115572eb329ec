"""What a captioning job will take, told from a short real run: a few pictures of several shards, captioned and judged.

Nothing of it is kept. The engine is the job's own, so its speed is measured and not guessed; only the job's start and
the end of each part, where the batch runs empty, weigh more in a short run than in a long one. Pictures are taken in
parts, and how these differ gives the intervals.
"""

import dataclasses
import io
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.captions.stage import CaptionStage
from curation.execution.plan import plan_images
from curation.execution.run_unit import UnitFailed, run_unit
from curation.execution.stage import Unit
from curation.images.row_count import RowEstimate, estimate_rows, size_text
from curation.shards.shard_index import read_samples
from curation.shards.target import Target
from schemas.dataset import LedgerEntry, table_path
from schemas.errors import UserError
from schemas.selection import Selection
from schemas.status import USABLE_STATUSES, CaptionStatus, RejectReason

SAMPLED_PICTURES: Final = 128
_SAMPLED_SHARDS: Final = 8
_FEWEST_PARTS: Final = 4
_FULL_BATCHES: Final = 4  # so many times what the engine holds ahead, and its running empty hardly weighs
_T5_LIMITS: Final = (120, 300)  # of PixArt-α and PixArt-Σ
_STUDENT_95: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36)
"""Student's t at 97.5 % for 2 to 8 values."""
_NORMAL_95: Final = 1.96
_LEFT_OUT: Final = RejectReason.NOT_SELECTED.value
_TRUNCATED: Final = (CaptionStatus.TRUNCATED, CaptionStatus.TRIMMED)


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over the sampled pictures, with 95 % from `low` to `high` by how the parts differ."""

    mean: float
    low: float
    high: float

    def text(self, spell: str, factor: float = 1.0) -> str:
        """The figure and its interval, times `factor`, each in the format `spell`."""
        mean, low, high = (format(factor * value, spell) for value in (self.mean, self.low, self.high))
        return f"{mean} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class CaptionEstimate:
    """A short run of `entries`, a part each, and what it says of a job of `rows` pictures over `workers`.

    `part_bytes` are those that each part's rows add to a table; `t5_tokens` those of the usable captions, None where
    nobody counted. `runs_empty`: whether the parts were too small to keep the engine busy.
    """

    rows: RowEstimate
    entries: tuple[LedgerEntry, ...]
    part_bytes: tuple[float, ...]
    t5_tokens: tuple[int, ...] | None
    start_seconds: float
    workers: int
    on_gpu: bool
    runs_empty: bool = False

    @property
    def pictures(self) -> int:
        """Pictures that were captioned."""
        return sum(entry.rows_kept for entry in self.entries)

    @property
    def images_per_second(self) -> Figure:
        """Of one worker."""
        return _figure([(e.rows_kept, e.run.seconds) for e in self.entries])

    @property
    def tokens_per_second(self) -> Figure:
        """Of one worker."""
        return _figure([(e.counts.get("tokens", 0), e.run.seconds) for e in self.entries])

    @property
    def tokens_per_caption(self) -> Figure:
        """Generated tokens, the end token included."""
        return _figure([(e.counts.get("tokens", 0), e.rows_kept) for e in self.entries])

    @property
    def bytes_per_picture(self) -> Figure:
        """Of the captions table, the footer of each file left out."""
        return _figure([(size, e.rows_kept) for size, e in zip(self.part_bytes, self.entries, strict=True)])

    @property
    def hours(self) -> Figure:
        """Of one worker for the whole job; its interval is that of the speed and of how many pictures there are."""
        rate, rows = self.images_per_second, self.rows
        return Figure(
            *(
                _hours(n, each)
                for n, each in zip((rows.rows, rows.low, rows.high), (rate.mean, rate.high, rate.low), strict=True)
            )
        )

    @property
    def table_bytes(self) -> Figure:
        """Of all captions."""
        each, rows = self.bytes_per_picture, self.rows
        share = self.pictures / (self.pictures + self.refused)
        return Figure(share * rows.rows * each.mean, share * rows.low * each.low, share * rows.high * each.high)

    @property
    def refused(self) -> int:
        """Sampled pictures that became rejects."""
        return sum(count for e in self.entries for name, count in e.rejected.items() if name != _LEFT_OUT)

    def count(self, name: str) -> int:
        """A tally of the ledger over all parts."""
        return sum(entry.counts.get(name, 0) for entry in self.entries)

    @property
    def lines(self) -> list[str]:
        """The estimate for a person."""
        rows, pictures, phases = self.rows, self.pictures, _summed(self.entries)
        limit = max(phases, key=lambda name: phases[name])
        device = "GPU" if self.on_gpu else "worker"
        low, mean, high = (_duration(3600 * value) for value in (self.hours.low, self.hours.mean, self.hours.high))
        stored = [size_text(value) for value in (self.table_bytes.mean, self.table_bytes.low, self.table_bytes.high)]
        return [
            f"{rows.rows:,.0f} pictures ({rows.low:,.0f} to {rows.high:,.0f})",
            f"{self.images_per_second.text(',.2f')} images/s a {device}, {self.tokens_per_second.text(',.0f')} "
            f"tokens/s, {self.tokens_per_caption.text(',.1f')} tokens a caption; {limit} takes "
            f"{phases[limit] / sum(phases.values()):.0%} of the time",
            f"{mean} of one {device} ({low} to {high}){self._together}",
            f"{stored[0]} of captions ({stored[1]} to {stored[2]}), {self.bytes_per_picture.mean:,.0f} B a picture",
            f"truncated {_share(sum(self.count(f'status {s.value}') for s in _TRUNCATED), pictures)}, usable "
            f"{_share(sum(self.count(f'status {s.value}') for s in USABLE_STATUSES), pictures)}, rejected "
            f"{_share(self.refused, pictures + self.refused)}{self._too_long}",
            self._basis,
        ]

    @property
    def _together(self) -> str:
        if self.workers == 1:
            return ""
        each = _duration(3600 * self.hours.mean / self.workers)
        return f"; {each} with {self.workers} that do not get in each other's way"

    @property
    def _too_long(self) -> str:
        """How many usable captions a text encoder would cut."""
        tokens = self.t5_tokens
        if not tokens:
            return "" if tokens is None else ", no usable caption to count T5 tokens of"
        over = (f"{_share(sum(n > limit for n in tokens), len(tokens))} over {limit} T5 tokens" for limit in _T5_LIMITS)
        return f", {', '.join(over)}"

    @property
    def _basis(self) -> str:
        shards, seconds = len({e.shard for e in self.entries}), sum(e.run.seconds for e in self.entries)
        taken = f"from {self.pictures:,} pictures of {shards} {'shard' if shards == 1 else 'shards'}"
        spent = f"captioned in {seconds:.1f} s after {self.start_seconds:.1f} s of loading"
        idle = "; at the end of so small a part the engine runs empty, so the job is faster" if self.runs_empty else ""
        return f"{taken} in {len(self.entries)} parts, {spent}{idle}; {self.rows.basis}"


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
        tables = [pq.read_table(short.target.path(table_path(unit.name))) for unit in units]
    captioned = sum(entry.rows_kept for entry in entries)
    if not captioned:
        raise UserError(f"none of the {pictures:,} pictures that were tried can be read: {_reasons(entries)}.")
    return CaptionEstimate(
        rows,
        tuple(entries),
        tuple(_added_bytes(tables)),
        _t5_tokens(tables) if stage.t5_tokenizer else None,
        started,
        workers,
        on_gpu,
        runs_empty=captioned < _FULL_BATCHES * worker.ahead * len(units),
    )


def _sampled_units(
    stage: CaptionStage, urls: Sequence[str], selection: Selection | None, pictures: int
) -> Iterator[Unit]:
    """A unit for each of a few shards, of which it takes some rows, evenly spread; several where shards are fewer."""
    draw = random.Random(0)
    chosen = sorted(draw.sample(list(urls), min(_SAMPLED_SHARDS, len(urls))))
    each, parts = -(-pictures // len(chosen)), -(-_FEWEST_PARTS // len(chosen))
    for plan in plan_images(stage.target, chosen, stage.source.container, 0):
        for unit in plan.units:
            keys = [s.key for s in read_samples(stage.target, unit.url, unit.planned.start, unit.planned.stop)]
            if selection is not None:
                selected = selection.keys_of(plan.shard)
                keys = [key for key in keys if key in selected]
            step = max(len(keys) / each, 1.0)
            taken = [keys[int(step * number)] for number in range(min(each, len(keys)))]
            for part in range(min(parts, len(taken))):
                planned = dataclasses.replace(unit.planned, name=f"{unit.planned.name}-part{part}")
                yield dataclasses.replace(unit, planned=planned, selected=frozenset(taken[part::parts]))


def _added_bytes(tables: Sequence[pa.Table]) -> Iterator[float]:
    """The bytes that each of `tables` adds to one table of them all: small files say little of large ones, whose rows
    share dictionaries and what compression has learnt."""
    whole = _stored_bytes(tables)
    for number in range(len(tables)):
        others = [*tables[:number], *tables[number + 1 :]]
        yield whole - _stored_bytes(others) if others else whole


def _stored_bytes(tables: Sequence[pa.Table]) -> int:
    """Of the columns of a Parquet file of `tables`, as the stage writes it, without the footer."""
    file = io.BytesIO()
    pq.write_table(pa.concat_tables(tables), file, compression="zstd", compression_level=3)
    footer = pq.read_metadata(file)
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    return sum(group.column(place).total_compressed_size for group in groups for place in range(footer.num_columns))


def _t5_tokens(tables: Sequence[pa.Table]) -> tuple[int, ...]:
    """Those of each usable caption."""
    return tuple(n for table in tables for n in pc.drop_null(table["n_t5_tokens"]).to_pylist())


def _figure(parts: Sequence[tuple[float, float]]) -> Figure:
    """The ratio of the sums of `parts` (amount, per so much); its interval is that of the parts' own ratios."""
    ratios = [amount / per for amount, per in parts if per]
    mean = sum(amount for amount, _ in parts) / sum(per for _, per in parts)
    if len(ratios) < 2:
        return Figure(mean, mean, mean)
    half = _STUDENT_95[len(ratios) - 2] * statistics.stdev(ratios) / math.sqrt(len(ratios))
    return Figure(mean, max(mean - half, 0.0), mean + half)


def _hours(rows: float, per_second: float) -> float:
    return rows / (3600 * per_second) if per_second else math.inf


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
