"""The selection file: sorted pairs, one digest, written whole."""

import errno
import os
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


def test_a_selection_is_on_the_disk_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.partition(".")[0])
        fsync(descriptor)

    def watched_replace(one: str, other: str) -> None:
        done.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write_selection(str(tmp_path / "keep.parquet"), make_selection(table([("a", "1")])))
    assert done == ["keep", "replace", tmp_path.name.partition(".")[0]]


def test_a_selection_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_selection(str(tmp_path / "keep.parquet"), make_selection(table([("a", "1")])))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_selection(str(tmp_path / "keep.parquet"), make_selection(table([("b", "2")])))
    assert [p.name for p in tmp_path.iterdir()] == ["keep.parquet"]
    assert read_selection(str(tmp_path / "keep.parquet")).keys_of("a") == {"1"}


def test_a_damaged_selection_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "keep.parquet"
    write_selection(str(path), make_selection(table([(f"s{n}", f"{n * 7919:x}") for n in range(2000)])))
    content = bytearray(path.read_bytes())
    content[100:2000] = bytes(byte ^ 0x5A for byte in content[100:2000])
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"keep\.parquet: damaged [^\n]*$"):
        read_selection(str(path))


def test_a_pair_that_occurs_twice_is_refused_by_name() -> None:
    with pytest.raises(DatasetError, match="a/1 occurs twice"):
        make_selection(table([("a", "1"), ("b", "1"), ("a", "1")]))


def test_what_is_no_selection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_selection(str(tmp_path / "none.parquet"))
    with pytest.raises(DatasetError, match="a directory, no file"):
        read_selection(str(tmp_path))
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DatasetError, match="not a Parquet file"):
        read_selection(str(tmp_path / "text.parquet"))
    pq.write_table(table([("a", "1")]), tmp_path / "plain.parquet")
    with pytest.raises(SchemaError, match="no latentmill kind"):
        read_selection(str(tmp_path / "plain.parquet"))


def test_a_directory_is_no_place_for_a_selection(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write_selection(str(tmp_path), make_selection(table([("a", "1")])))
    assert list(tmp_path.iterdir()) == []
