"""A small stage, its shards, and how to look at what it wrote."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import copy_job
import pyarrow.parquet as pq
import pytest
from dataset_files import data_of
from rich.console import Console

from curation.execution.job import JobOptions, run_job
from curation.execution.summary import JobSummary

WriteShard = Callable[..., Path]


@pytest.fixture
def write_shard(tmp_path: Path) -> WriteShard:
    """Write a shard below tmp_path: `write_shard("a", 10, words="hello", folder="in")`."""

    def write(name: str, rows: int, words: str = "hello", folder: str = "in") -> Path:
        return copy_job.write_shard(tmp_path / folder / f"{name}.tar", rows, words)

    return write


@dataclass(frozen=True, slots=True)
class Copying:
    """Run copy jobs into one directory and look at it."""

    shards: Path
    out: Path
    marks: Path

    def run(self, options: JobOptions | None = None, *, console: Console | None = None, **named: Any) -> JobSummary:
        """Run the job over all shards."""
        return run_job(self.job(**named), options or JobOptions(), console or Console(file=io.StringIO()))

    def job(self, shards: Sequence[str] | None = None, out: Path | None = None, **named: Any) -> Any:
        """The job over all shards."""
        patterns = shards or [str(self.shards / "*.tar")]
        self.marks.mkdir(exist_ok=True)
        return copy_job.make_job(patterns, str(out or self.out), marks=str(self.marks), **named)

    def files(self, out: Path | None = None) -> dict[str, bytes]:
        """Every file except the runs' summaries; of ledger entries, all but how the run went."""
        return data_of(out or self.out)

    def rows(self) -> dict[str, str]:
        """key → text of every row; fails on a key that is there twice."""
        rows = [row for path in sorted(self.out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
        found = {row["key"]: row["text"] for row in rows}
        assert len(found) == len(rows)
        return found

    def rejected(self) -> dict[str, str]:
        """key → reason of every rejected row."""
        paths = sorted((self.out / "rejects").glob("*.parquet"))
        return {row["key"]: row["reason"] for path in paths for row in pq.read_table(path).to_pylist()}

    def stamps(self) -> dict[str, int]:
        """When each file was last written."""
        return {str(p.relative_to(self.out)): p.stat().st_mtime_ns for p in self.out.rglob("*") if p.is_file()}


@pytest.fixture
def copying(write_shard: WriteShard, tmp_path: Path) -> Copying:
    """Copy jobs over two shards: a (10 rows, three units of 4) and b (5 rows, two units)."""
    write_shard("a", 10)
    write_shard("b", 5)
    return Copying(tmp_path / "in", tmp_path / "out", tmp_path / "marks")
