"""The job of copy_job.py as a command whose run is disturbed, and what its output must be in the end."""

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import copy_job
import pyarrow.parquet as pq
from dataset_files import data_of
from rich.console import Console

from curation.execution.job import JobOptions, run_job

ROWS = {"a": 10, "b": 5, "c": 9}
KEYS = sorted(f"{shard}/k{row:03d}" for shard, rows in ROWS.items() for row in range(rows))
REJECTED = "c/k004"
UNITS = 8


@dataclass(frozen=True, slots=True)
class Campaign:
    """One job's command, its output, and what that output must be in the end."""

    shards: Path
    out: Path
    expected: dict[str, bytes]

    def command(self, *more: str) -> list[str]:
        """The command line; c/k004 is always refused, so that there is a rejects table."""
        line = [sys.executable, copy_job.__file__, "--shards", f"{self.shards}/*.tar", "--out", str(self.out)]
        return [*line, "--trouble", f"{REJECTED}=reject", *more]

    def run(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, whichever that is."""
        return subprocess.run(
            self.command(*more), capture_output=True, text=True, check=False, env=environment(), timeout=120
        )

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Run it in the background."""
        return subprocess.Popen(self.command(*more), stderr=subprocess.PIPE, text=True, env=environment())

    def wait_for_entries(self, count: int, process: subprocess.Popen[str]) -> None:
        """Wait until `count` units are done."""
        ledger = self.out / "ledger"
        while not (ledger.is_dir() and sum(path.suffix == ".json" for path in ledger.iterdir()) >= count):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)

    def check_goes_on(self) -> None:
        """The same command again makes what is missing, and everything is as if nothing had happened."""
        done = self.run()
        assert done.returncode == 0, done.stderr
        self.check_whole()
        job = copy_job.make_job([f"{self.shards}/*.tar"], str(self.out))
        again = run_job(job, JobOptions(), Console(file=io.StringIO()))
        assert (again.units_done, again.units_current) == (0, UNITS)

    def check_whole(self) -> None:
        """Nothing lost, nothing twice, nothing left over, and the bytes of an undisturbed run."""
        assert data_of(self.out) == self.expected
        tables = [*self.out.glob("*.parquet"), *(self.out / "rejects").glob("*.parquet")]
        assert sorted(key for path in tables for key in pq.read_table(path)["key"].to_pylist()) == KEYS
        assert not [path for path in self.out.rglob("*") if ".tmp-" in path.name]

    def check_nothing_partial(self) -> None:
        """Whatever a ledger entry vouches for is there, whole, and of the undisturbed run."""
        for path in (self.out / "ledger").glob("*.json") if self.out.exists() else ():
            for output in json.loads(path.read_text())["outputs"]:
                assert (self.out / output["path"]).read_bytes() == self.expected[output["path"]]


def environment() -> dict[str, str]:
    """For a process that loads the job by its path."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(copy_job.__file__).parent)}
