"""The selection file: sorted pairs, one digest, written whole."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DatasetError, SchemaError
from schemas.selection import make_selection, read_selection, write_selection

pairs = st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique=True, max_size=30)


def table(rows: list[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {"shard": pa.array([s for s, _ in rows], pa.string()), "key": pa.array([k for _, k in rows], pa.string())}
    )


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_changes_neither_rows_nor_digest(rows: list[tuple[str, str]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, other = make_selection(table(rows)), make_selection(table(shuffled))
    assert one.digest == other.digest
    assert one.rows.equals(other.rows)
    # Slices and chunks are how tables come, not what they hold.
    cut = pa.concat_tables([table(rows[:7]), table([("before", "it"), *rows[7:]]).slice(1)])
    assert make_selection(cut).digest == one.digest


@given(pairs, st.text(max_size=5))
def test_the_keys_of_a_shard_are_those_of_its_pairs(rows: list[tuple[str, str]], other: str) -> None:
    made = make_selection(table(rows))
    for shard in {other, *(shard for shard, _ in rows)}:
        assert made.keys_of(shard) == {key for s, key in rows if s == shard}


@given(pairs, pairs)
def test_other_pairs_have_another_digest(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    assert (make_selection(table(one)).digest == make_selection(table(other)).digest) == (set(one) == set(other))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    made = make_selection(table([("b", "2"), ("a", "9"), ("b", "10")]), {"recipe": {"min": 3}})
    write_selection(str(tmp_path / "keep.parquet"), made)
    read = read_selection(str(tmp_path / "keep.parquet"))
    assert read.rows.equals(made.rows)
    assert (read.digest, read.about) == (made.digest, made.about)
    assert read.keys_of("b") == {"2", "10"}
    assert list(read.shards()) == ["a", "b"]
    assert [p.name for p in tmp_path.iterdir()] == ["keep.parquet"]


def test_a_pair_that_occurs_twice_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match="a/1 occurs twice"):
        make_selection(table([("a", "1"), ("b", "1"), ("a", "1")]))


def test_what_is_no_selection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_selection(str(tmp_path / "none.parquet"))
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DatasetError, match="not a Parquet file"):
        read_selection(str(tmp_path / "text.parquet"))
    pq.write_table(table([("a", "1")]), tmp_path / "plain.parquet")
    with pytest.raises(SchemaError, match="no latentmill kind"):
        read_selection(str(tmp_path / "plain.parquet"))
