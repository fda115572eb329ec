"""Odd shards are found, and chance alone is none."""

import random

import pyarrow as pa
import pytest

from curation.report.outliers import FEWEST_SHARDS, find_outliers
from curation.report.shard_tallies import AVERAGED, Moments, ShardTallies, ShardTally
from schemas.dataset import LedgerEntry, RunFacts


def shard(chance: random.Random, *, rejected: int, bad_share: float, words: float, rows: int = 500) -> ShardTally:
    tally = ShardTally(rows_in=rows + rejected, rejected=rejected, rows=rows)
    for _ in range(rows):
        tally.statuses["refusal" if chance.random() < bad_share else "ok"] += 1
    tally.moments["n_words"].add(pa.chunked_array([[chance.gauss(words, 20) for _ in range(rows)]]))
    return tally


def shards(count: int, **odd: float) -> dict[str, ShardTally]:
    chance = random.Random(1)
    usual = {"rejected": 5, "bad_share": 0.02, "words": 90.0}
    made = {f"s{i:03d}": shard(chance, **usual) for i in range(count)}
    return made | ({"odd": shard(chance, **(usual | odd))} if odd else {})


def test_even_shards_have_no_outlier() -> None:
    found = find_outliers(shards(200))
    assert found.shards == 200
    assert "mean n_words" in found.figures
    assert found.found == ()


@pytest.mark.parametrize(
    ("odd", "figure"),
    [({"rejected": 200}, "share rejected"), ({"bad_share": 0.3}, "share refusal"), ({"words": 130.0}, "mean n_words")],
)
def test_an_odd_shard_is_named_with_its_figure(odd: dict[str, float], figure: str) -> None:
    found = find_outliers(shards(30, **odd)).found
    assert found
    assert {one.shard for one in found} == {"odd"}
    assert figure in {one.figure for one in found}
    assert all(abs(one.sigmas) > 4 for one in found)


def test_one_bad_row_in_otherwise_perfect_shards_is_no_outlier() -> None:
    chance = random.Random(1)
    made = {f"s{i}": shard(chance, rejected=0, bad_share=0, words=90) for i in range(20)}
    made["s3"].rejected, made["s3"].rows_in = 1, 501
    assert "share rejected" not in {one.figure for one in find_outliers(made).found}


def test_few_shards_are_not_compared() -> None:
    found = find_outliers(shards(FEWEST_SHARDS - 2, words=300.0))
    assert (found.figures, found.found) == ((), ())


def test_moments_merge() -> None:
    values = [1.0, 2.0, 5.0, 9.0]
    parts = [Moments(), Moments(), Moments()]
    parts[0].add(pa.chunked_array([values[:1]]))
    parts[1].add(pa.chunked_array([[*values[1:], None]]))
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    assert parts[2].mean == pytest.approx(4.25)
    assert parts[2].deviation == pytest.approx((sum((v - 4.25) ** 2 for v in values) / 4) ** 0.5)
    assert set(ShardTally().moments) == set(AVERAGED)


def test_rows_that_were_not_selected_are_no_rejects() -> None:
    entry = LedgerEntry(
        *("u", "s", 0, 10, "f", ()), 10, 3, {"not_selected": 6, "corrupt": 1}, {}, (), RunFacts(1.0, {}, 1, "host", {})
    )
    tallies = ShardTallies()
    tallies.add_ledger([entry, entry])
    assert (tallies.shards["s"].rows_in, tallies.shards["s"].rejected) == (8, 2)
