from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.nouns.merging import BLOCK_ROWS, merge_runs, merge_sorted, read_run, regroup, sum_by_keys

SCHEMA = pa.schema([("column", pa.string()), ("noun", pa.string()), ("tf", pa.int64())])
KEYS = ("column", "noun")

KEY = st.tuples(st.sampled_from(["caption", "raw_caption"]), st.sampled_from(["", "a", "dog", "z", "é", "名", "😀"]))
COUNTS = st.dictionaries(KEY, st.integers(1, 1 << 40))
Counts = dict[tuple[str, str], int]


def table(counts: Counts) -> pa.Table:
    ordered = sorted((column.encode(), noun.encode(), n) for (column, noun), n in counts.items())
    rows = [{"column": c.decode(), "noun": w.decode(), "tf": n} for c, w, n in ordered]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def run(counts: Counts, block: int) -> Iterator[pa.Table]:
    """The counts as a run of blocks of `block` rows."""
    whole = table(counts)
    return (whole.slice(start, block) for start in range(0, whole.num_rows, block))


def as_dict(tables: Iterator[pa.Table]) -> Counts:
    rows = [row for t in tables for row in t.to_pylist()]
    keys = [(row["column"], row["noun"]) for row in rows]
    assert keys == sorted(set(keys)), "in order, none twice"
    return {key: row["tf"] for key, row in zip(keys, rows, strict=True)}


def added(parts: list[Counts]) -> Counts:
    total: Counter[tuple[str, str]] = Counter()
    for part in parts:
        total.update(part)
    return dict(total)


@given(st.lists(COUNTS, max_size=6), st.integers(1, 4))
def test_a_merge_of_sorted_runs_is_the_sum_of_dictionaries(parts: list[Counts], block: int) -> None:
    assert as_dict(merge_sorted([run(part, block) for part in parts], KEYS)) == added(parts)


@given(st.lists(COUNTS, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_runs_makes_no_difference(parts: list[Counts], draw: Random) -> None:
    shuffled = draw.sample(parts, len(parts))
    one, other = (as_dict(merge_sorted([run(p, 2) for p in order], KEYS)) for order in (parts, shuffled))
    assert one == other


@given(COUNTS, COUNTS, COUNTS)
def test_merging_merged_runs_makes_no_difference(a: Counts, b: Counts, c: Counts) -> None:
    left = merge_sorted([merge_sorted([run(a, 2), run(b, 3)], KEYS), run(c, 1)], KEYS)
    right = merge_sorted([run(a, 1), merge_sorted([run(b, 2), run(c, 2)], KEYS)], KEYS)
    assert as_dict(left) == as_dict(right)


@settings(max_examples=25)
@given(st.lists(COUNTS, min_size=1, max_size=11), st.integers(2, 4))
def test_several_passes_give_the_same_and_leave_one_pass_of_files(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Counts], fan_in: int
) -> None:
    scratch: Path = tmp_path_factory.mktemp("scratch")
    opens = [partial(run, part, 2) for part in parts]
    assert as_dict(merge_runs(opens, KEYS, SCHEMA, scratch, fan_in)) == added(parts)
    assert len({path.name.partition("-")[0] for path in scratch.iterdir()}) <= 1


def test_at_most_so_many_runs_are_open_at_once(tmp_path: Path) -> None:
    open_now: list[int] = []
    most = 0

    def counted_run(number: int) -> Iterator[pa.Table]:
        nonlocal most
        open_now.append(number)
        most = max(most, len(open_now))
        yield from run({("caption", f"n{number:02d}"): 1}, 1)
        open_now.remove(number)

    merged = as_dict(merge_runs([partial(counted_run, n) for n in range(30)], KEYS, SCHEMA, tmp_path, 4))
    assert (len(merged), most) == (30, 4)


def test_no_runs_give_no_rows(tmp_path: Path) -> None:
    assert list(merge_runs([], KEYS, SCHEMA, tmp_path)) == []


def test_a_file_is_read_in_small_blocks(tmp_path: Path) -> None:
    rows = 3 * BLOCK_ROWS + 1
    nouns = pa.table({"noun": [f"{i:08d}" for i in range(rows)], "tf": range(rows)})
    pq.write_table(nouns, tmp_path / "a.parquet")
    blocks = list(read_run(str(tmp_path / "a.parquet")))
    assert [block.num_rows for block in blocks] == [BLOCK_ROWS] * 3 + [1]
    assert pa.concat_tables(blocks).equals(nouns)


def test_regrouping_changes_no_rows_and_no_order() -> None:
    nouns = pa.table({"noun": [str(i) for i in range(100)]})
    groups = list(regroup((nouns.slice(i, 7) for i in range(0, 100, 7)), 20))
    assert pa.concat_tables(groups).equals(nouns)
    assert all(group.num_rows >= 20 for group in groups[:-1])


def test_adding_up_keeps_columns_types_and_the_order_of_bytes() -> None:
    doubled = sum_by_keys(pa.concat_tables([table({("c", "é"): 1, ("c", "z"): 2})] * 2), KEYS)
    assert doubled.equals(table({("c", "z"): 4, ("c", "é"): 2}))
    assert doubled.schema == SCHEMA
