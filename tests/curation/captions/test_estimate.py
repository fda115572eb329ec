"""What a short run says of a whole job: figures, and intervals by how its parts differ."""

import dataclasses
import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from captions_dataset import PROMPT

from curation.captions.estimate import CaptionEstimate, _added_bytes
from curation.captions.quality import clean, measure
from curation.images.row_count import RowEstimate
from schemas.dataset import LedgerEntry, RunFacts
from schemas.tables import CAPTIONS

WORDS = ["".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=3 + n % 6)) for n in range(2000)]
ROWS = RowEstimate(1000.0, 900.0, 1200.0, "2 shards")


def entry(shard: str, kept: int, seconds: float, tokens: int, **rejected: int) -> LedgerEntry:
    counts = {"tokens": tokens, "status ok": kept - 1, "status truncated": 1}
    facts = RunFacts(seconds, {"model": seconds}, 1, "host", {})
    rows = kept + sum(rejected.values())
    return LedgerEntry(shard, shard, 0, rows, "f", (), rows, kept, rejected, counts, (), facts)


def estimate(*entries: LedgerEntry, **changed: Any) -> CaptionEstimate:
    sizes = tuple(300.0 * one.rows_kept for one in entries)
    return dataclasses.replace(CaptionEstimate(ROWS, entries, sizes, None, 1.0, 1, False), **changed)


def test_figures_are_of_all_parts_and_intervals_by_how_these_differ() -> None:
    told = estimate(entry("a", 10, 5.0, 1000), entry("b", 10, 10.0, 500))
    assert told.images_per_second.mean == pytest.approx(20 / 15)
    assert told.images_per_second.high - told.images_per_second.mean == pytest.approx(12.71 * 0.5, rel=0.01)
    assert told.tokens_per_second.mean == pytest.approx(100)
    assert told.tokens_per_caption.mean == 75
    alike = estimate(entry("a", 10, 5.0, 1000), entry("b", 10, 5.0, 1000))
    assert (alike.images_per_second.low, alike.images_per_second.high) == (2.0, 2.0)


def test_hours_and_bytes_also_vary_with_how_many_pictures_there_are() -> None:
    told = estimate(entry("a", 10, 5.0, 1000), entry("b", 10, 5.0, 1000, corrupt=5))
    assert [3600 * v for v in dataclasses.astuple(told.hours)] == pytest.approx([500, 450, 600])
    assert list(dataclasses.astuple(told.table_bytes)) == pytest.approx([0.8 * 300 * n for n in (1000, 900, 1200)])


def test_rows_that_a_selection_leaves_out_are_not_refused() -> None:
    told = estimate(entry("a", 10, 5.0, 1000, not_selected=90), entry("b", 10, 5.0, 1000))
    assert told.refused == 0
    assert told.table_bytes.mean == pytest.approx(300_000)


def test_lines_have_an_interval_at_each_figure_and_t5_tokens_where_they_were_counted() -> None:
    both = entry("a", 10, 5.0, 1000), entry("a", 10, 6.0, 900)
    pictures, speed, hours, size, shares, basis = estimate(*both).lines
    for line, intervals in ((pictures, 1), (speed, 3), (hours, 1), (size, 1), (shares, 3)):
        assert line.count(" to ") == intervals
    assert "of 1 shard in 2 parts" in basis
    assert "T5" not in shares
    counted = estimate(*both, t5_tokens=(50, 121, 301, 120)).lines[4]
    assert "50.0% (15.0% to 85.0%) over 120 T5 tokens, 25.0%" in counted
    assert "the job is faster" in estimate(*both, runs_empty=True).lines[5]


def table(rows: range) -> pa.Table:
    """Captions as the stage writes them, each of 60 of 2,000 words."""
    made = []
    for row in rows:
        draw = random.Random(row)
        text = f"A picture of {' '.join(draw.choice(WORDS) for _ in range(60))}."
        judged, about = clean(text, "stop"), {"shard": "s", "key": f"k{row:06d}", "width": 640, "height": 480}
        made.append(
            about
            | dataclasses.asdict(measure(text))
            | {"raw_caption": None, "generated": text, "caption": judged.text, "status": judged.status.value}
            | {"flags": list(judged.flags), "finish_reason": "stop", "error": None, "n_prompt_tokens": 620}
            | {"n_tokens": 80, "n_t5_tokens": None, "mean_logprob": -0.5, "prompt_id": PROMPT[:16]}
            | {"rules_version": 2, "seed": -1}
        )
    return pa.Table.from_pylist(made, schema=CAPTIONS.arrow)


def test_the_bytes_of_a_few_small_parts_are_near_those_of_a_large_file() -> None:
    parts = [table(range(start, start + 16)) for start in range(0, 128, 16)]
    told = sum(_added_bytes(parts)) / 128
    whole, alone = io.BytesIO(), io.BytesIO()
    pq.write_table(table(range(2000)), whole, compression="zstd", compression_level=3)
    pq.write_table(parts[0], alone, compression="zstd", compression_level=3)
    assert told == pytest.approx(len(whole.getvalue()) / 2000, rel=0.25)
    assert len(alone.getvalue()) / 16 > 2 * told
