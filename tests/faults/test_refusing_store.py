"""An object store that refuses: for a moment, for good, and half-way through an upload."""

import errno
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import copy_job
import fsspec
import pytest
from campaign import REJECTED, ROWS
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console

from curation.execution.job import JobOptions, run_job
from curation.execution.summary import JobSummary
from schemas.errors import ExitCode, StorageError

PLACE = "refusing://bucket"


class RefusingStore(MemoryFileSystem):
    """Memory as a store, in which the uploads that `refuse` picks by their number fail."""

    protocol = "refusing"
    store: dict[str, Any] = {}  # noqa: RUF012 - shared by all instances, as MemoryFileSystem has it
    pseudo_dirs = [""]  # noqa: RUF012
    refuse: Callable[[int], Exception | None] = staticmethod(lambda number: None)
    uploads = 0

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        RefusingStore.uploads += 1
        error = RefusingStore.refuse(RefusingStore.uploads)
        if error is not None:
            raise error
        with open(lpath, "rb") as file:
            self.pipe_file(rpath, file.read())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.shards.target._UPLOAD_PAUSES", (0.0, 0.0))


@pytest.fixture
def store() -> Iterator[type[RefusingStore]]:
    fsspec.register_implementation("refusing", RefusingStore, clobber=True)
    RefusingStore.uploads, RefusingStore.refuse = 0, staticmethod(lambda number: None)
    yield RefusingStore
    RefusingStore.store.clear()
    RefusingStore.pseudo_dirs[:] = [""]


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    for name, rows in ROWS.items():
        copy_job.write_shard(tmp_path / "in" / f"{name}.tar", rows)
    return [f"{tmp_path}/in/*.tar"]


def run(shards: list[str], out: str = "out") -> JobSummary:
    job = copy_job.make_job(shards, f"{PLACE}/{out}", trouble={REJECTED: "reject"})
    return run_job(job, JobOptions(), Console(file=io.StringIO()))


def files(out: str = "out") -> dict[str, bytes]:
    """What is in the dataset `out`: without the runs' summaries, and of ledger entries all but how the run went."""
    found = {}
    for path, file in sorted(RefusingStore.store.items()):
        name = path.partition(f"/{out}/")[2]
        if name.startswith("ledger/"):
            found[name] = json.dumps({k: v for k, v in json.loads(file.getvalue()).items() if k != "run"}).encode()
        elif name and not name.startswith("runs/"):
            found[name] = file.getvalue()
    return found


def slow_down(number: int) -> Exception:
    return OSError(f"An error occurred (SlowDown) when calling the PutObject operation, request {number}")


def denied(number: int) -> Exception:
    return PermissionError(errno.EACCES, "Access Denied")


def test_a_store_that_refuses_now_and_then_is_asked_again(store: type[RefusingStore], shards: list[str]) -> None:
    assert run(shards, "expected").exit_code is ExitCode.OK
    store.uploads = 0
    store.refuse = staticmethod(lambda number: slow_down(number) if number % 3 else None)
    summary = run(shards)
    assert summary.failed == {}
    assert summary.exit_code is ExitCode.OK
    assert files() == files("expected")


@pytest.mark.parametrize("first", [1, 2, 6, 11, 20])
@pytest.mark.parametrize("error", [slow_down, denied])
def test_where_it_refuses_for_good_nothing_is_lost_and_the_same_command_goes_on(
    store: type[RefusingStore], shards: list[str], first: int, error: Callable[[int], Exception]
) -> None:
    assert run(shards, "expected").exit_code is ExitCode.OK
    store.uploads = 0
    store.refuse = staticmethod(lambda number: error(number) if number >= first else None)
    if first == 1:  # before anything was touched
        with pytest.raises(StorageError, match=r"no permission|3 times in a row"):
            run(shards)
    else:
        ended = run(shards)
        assert ended.exit_code is ExitCode.STORAGE
        assert "bucket/out/" in ended.stopped_by
    left = files()
    for path, content in left.items():
        if path.startswith("ledger/"):
            for output in json.loads(content)["outputs"]:
                assert output["path"] in left, "an entry vouches for what is there"
    store.refuse = staticmethod(lambda number: None)
    assert run(shards).exit_code is ExitCode.OK
    assert files() == files("expected")
