"""The job of copy_job.py as a command whose run is disturbed, and what its output must be in the end.

`KILLS` are points of every kind at which it is told to kill itself by SIGKILL.
"""

import io
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import copy_job
from dataset_files import Difference, broken_promises, data_of, difference
from rich.console import Console

from curation.execution.job import JobOptions, run_job

ROWS = {"a": 10, "b": 5, "c": 9}
KEYS = sorted(f"{shard}/k{row:03d}" for shard, rows in ROWS.items() for row in range(rows))
REJECTED = "c/k004"
UNITS = 8
RAY = ("--workers", "2", "--cpus-per-worker", "0.5", "--attempts", "20")
KILLS = [
    "publish:1:before",  # nothing is there but a temporary dataset.json
    "publish:1:after",
    "index:1:before",
    "index:2:after",
    "process:2:before",
    "keep:6:after",  # in the middle of a unit
    "reject:1:after",
    "finish:3:after",  # an output is whole under its temporary name
    "commit:3:before",
    "remove:1:before",
    "replace:5:before",
    "replace:7:before",  # outputs are in place, their ledger entry is not
    "replace:12:after",
    "fsync:9:before",
    "fsync:20:after",
    "commit:8:after",  # all units are done, plan.json is not
]


def write_shards(folder: Path) -> None:
    """The job's input."""
    for shard, rows in ROWS.items():
        copy_job.write_shard(folder / f"{shard}.tar", rows)


@dataclass(frozen=True, slots=True)
class Campaign:
    """One job's command, its output, and what that output must be in the end."""

    shards: Path
    out: Path
    expected: dict[str, bytes]

    def command(self, *more: str) -> list[str]:
        """The command line; c/k004 is always refused, so that there is a rejects table."""
        return [sys.executable, copy_job.__file__, *self.arguments(*more)]

    def arguments(self, *more: str) -> list[str]:
        """The command line without the program."""
        line = ["--shards", f"{self.shards}/*.tar", "--out", str(self.out), "--trouble", f"{REJECTED}=reject"]
        return [*line, *more]

    def run(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end, whichever that is."""
        return subprocess.run(
            self.command(*more), capture_output=True, text=True, check=False, env=environment(), timeout=120
        )

    def run_limited(self, size: int) -> "subprocess.CompletedProcess[str]":
        """Run it where no file may grow past `size` bytes."""
        code = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1));"
        code += "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        line = [sys.executable, "-c", code, str(size), *self.command()[1:]]
        return subprocess.run(line, capture_output=True, text=True, check=False, env=environment(), timeout=120)

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Run it in the background."""
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(*more), text=True, env=environment(), **pipes)

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
        assert difference(data_of(self.out), self.expected, KEYS) == Difference()

    def check_nothing_partial(self) -> None:
        """Whatever a ledger entry vouches for is there, whole, and of the undisturbed run."""
        assert not broken_promises(self.out, self.expected)

    def check_storage_error(self, ended: "subprocess.CompletedProcess[str]", what: str) -> None:
        """It `ended` in one line that says `what`, and published nothing partial."""
        last = ended.stderr.splitlines()[-1]
        assert ended.returncode == 4, ended.stderr
        assert last.startswith(f"error: {self.out}")
        assert what in last
        assert "make room or fix access, then run the same command" in last
        assert "Traceback" not in ended.stderr
        assert not [path for path in self.out.rglob("*") if ".tmp-" in path.name]
        self.check_nothing_partial()


def environment() -> dict[str, str]:
    """For a process that loads the job by its path."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(copy_job.__file__).parent)}
