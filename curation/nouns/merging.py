"""Merge of sorted tables of counts in bounded memory: a k-way merge by blocks, in as many passes as it takes.

A run is an iterator of tables that together are sorted by the key columns, no key twice. Of each run one block is held.
The smallest last key among those blocks is the frontier: rows up to it can have no counterpart in blocks not yet read,
so they are added up and given out. Integers are added, so the result is exact and does not depend on the grouping.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

FAN_IN: Final = 32  # runs merged at once; more are merged in several passes
BLOCK_ROWS: Final = 8_192

_GROUP_ROWS: Final = 1 << 16  # rows a row group of a spilled run

Run = Iterator[pa.Table]
OpenRun = Callable[[], Run]


def read_run(file: Any) -> Run:
    """The rows of a Parquet file (a path or an open file) as a run of small blocks."""
    with pq.ParquetFile(file, buffer_size=1 << 16, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(batch_size=BLOCK_ROWS, use_threads=False):
            yield pa.Table.from_batches([batch])


def merge_sorted(runs: Iterable[Run], keys: Sequence[str]) -> Run:
    """One run with the keys of all `runs`; the other columns, integers, are added up."""
    heads = [head for run in runs if (head := _Head.start(run, keys)) is not None]
    while heads:
        frontier = min(head.last for head in heads)
        ready = [head.take(frontier) for head in heads]
        heads = [head for head in heads if head.refill()]
        yield sum_by_keys(pa.concat_tables(ready), keys)


def merge_runs(
    opens: Sequence[OpenRun], keys: Sequence[str], schema: pa.Schema, scratch: Path, fan_in: int = FAN_IN
) -> Run:
    """`merge_sorted` of any number of runs of `schema`, at most `fan_in` open at a time.

    What one pass leaves for the next lies in the directory `scratch`.
    """
    level = 0
    while len(opens) > fan_in:
        groups = [opens[start : start + fan_in] for start in range(0, len(opens), fan_in)]
        spilled = []
        for number, group in enumerate(groups):
            path = scratch / f"{level}-{number:06d}.parquet"
            _spill(merge_sorted((open_run() for open_run in group), keys), path, schema)
            spilled.append(path)
        if level:
            for path in scratch.glob(f"{level - 1}-*.parquet"):
                path.unlink()
        opens = [_opener(path) for path in spilled]
        level += 1
    yield from merge_sorted((open_run() for open_run in opens), keys)


def sum_by_keys(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """`table` with one row a key, sorted by key, and the other columns added up."""
    values = [name for name in table.column_names if name not in keys]
    summed = table.group_by(list(keys), use_threads=False).aggregate([(name, "sum") for name in values])
    renamed = summed.select([*keys, *(f"{name}_sum" for name in values)]).rename_columns([*keys, *values])
    ordered = renamed.sort_by([(key, "ascending") for key in keys])
    return ordered.select(table.column_names).cast(table.schema).combine_chunks()


@dataclass(slots=True)
class _Head:
    """The block of a run that is being merged."""

    run: Run
    keys: Sequence[str]
    block: pa.Table

    @classmethod
    def start(cls, run: Run, keys: Sequence[str]) -> "_Head | None":
        head = cls(run, keys, pa.table({}))
        return head if head.refill() else None

    @property
    def last(self) -> tuple[str, ...]:
        return self._key(self.block.num_rows - 1)

    def take(self, frontier: tuple[str, ...]) -> pa.Table:
        """Take out the rows whose key is at most `frontier`."""
        rows = bisect_right(range(self.block.num_rows), frontier, key=self._key)
        ready, self.block = self.block.slice(0, rows), self.block.slice(rows)
        return ready

    def refill(self) -> bool:
        """Read the next block if this one is used up; False at the end of the run."""
        while not self.block.num_rows:
            following = next(self.run, None)
            if following is None:
                return False
            self.block = following.combine_chunks()
        return True

    def _key(self, row: int) -> tuple[str, ...]:
        # Python orders strings by code point, which is how Arrow orders them by their UTF-8.
        return tuple(self.block[key][row].as_py() for key in self.keys)


def _opener(path: Path) -> OpenRun:
    return lambda: read_run(str(path))


def _spill(run: Run, path: Path, schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for table in regroup(run, _GROUP_ROWS):
            writer.write_table(table)


def regroup(run: Run, rows: int) -> Run:
    """The same rows in tables of at least `rows` rows, but for the last."""
    waiting: list[pa.Table] = []
    for table in run:
        waiting.append(table)
        if sum(t.num_rows for t in waiting) >= rows:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
