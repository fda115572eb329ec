"""An object store in memory that refuses, and the job of copy_job.py with its output there."""

import errno
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import copy_job
import fsspec
from campaign import REJECTED
from dataset_files import without_run
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console

from curation.execution.job import JobOptions, run_job
from curation.execution.summary import JobSummary

PLACE = "refusing://bucket"


Refuse = Callable[[int, int], Exception | None]
"""Of an upload's number, and how often this file was tried before: the error that it ends in, or None."""


def never(number: int, attempt: int) -> None:
    """The store is well."""


class RefusingStore(MemoryFileSystem):
    """Memory as a store, in which the uploads that `refuse` picks fail.

    With `answer_lost` what is refused was stored all the same. `refused` are the paths, by how often.
    """

    protocol = "refusing"
    store: dict[str, Any] = {}  # noqa: RUF012 - shared by all instances, as MemoryFileSystem has it
    pseudo_dirs = [""]  # noqa: RUF012 - likewise
    refuse: Refuse = staticmethod(never)
    answer_lost = False
    uploads = 0
    refused: ClassVar[Counter[str]] = Counter()
    _counting = threading.Lock()  # a job uploads the index of its next shard in a thread of its own

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        with self._counting:
            RefusingStore.uploads += 1
            error = RefusingStore.refuse(RefusingStore.uploads, self.refused[rpath])
            self.refused[rpath] += error is not None
        if error is None or self.answer_lost:
            with open(lpath, "rb") as file:
                self.pipe_file(rpath, file.read())
        if error is not None:
            raise error

    @classmethod
    def begin(cls, refuse: Refuse = never, *, answer_lost: bool = False) -> None:
        """Refuse like this from now on, and count anew."""
        cls.refuse, cls.answer_lost, cls.uploads = staticmethod(refuse), answer_lost, 0
        cls.refused.clear()


@contextmanager
def registered() -> Iterator[type[RefusingStore]]:
    """The store, empty, and known by its protocol."""
    fsspec.register_implementation("refusing", RefusingStore, clobber=True)
    RefusingStore.begin()
    yield RefusingStore
    RefusingStore.store.clear()
    RefusingStore.pseudo_dirs[:] = [""]


def run(shards: list[str], out: str = "out") -> JobSummary:
    job = copy_job.make_job(shards, f"{PLACE}/{out}", trouble={REJECTED: "reject"})
    return run_job(job, JobOptions(), Console(file=io.StringIO()))


def files(out: str = "out") -> dict[str, bytes]:
    """What is in the dataset `out`: without the runs' summaries, and of ledger entries all but how the run went."""
    found = {}
    for path, file in sorted(RefusingStore.store.items()):
        name = path.partition(f"/{out}/")[2]
        if name and not name.startswith("runs/"):
            found[name] = without_run(name, file.getvalue())
    return found


def slow_down(number: int, attempt: int) -> Exception:
    return OSError(f"An error occurred (SlowDown) when calling the PutObject operation, request {number}")


def denied(number: int, attempt: int) -> Exception:
    return PermissionError(errno.EACCES, "Access Denied")
