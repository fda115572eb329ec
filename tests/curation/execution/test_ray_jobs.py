"""The same jobs on Ray. Starting Ray costs seconds, so each test asks for many things at once."""

import importlib
import io
import signal
from pathlib import Path
from typing import Any

import copy_job
import psutil
import pytest
from rich.console import Console

from curation.execution.job import JobOptions
from curation.execution.ray_environment import prepare_ray_environment
from schemas.errors import ExitCode

RAY = JobOptions(workers=2, use_ray=True, cpus_per_worker=0.5, attempts=2)


@pytest.fixture(autouse=True, scope="module")
def _stage_by_value() -> None:
    prepare_ray_environment(None)
    importlib.import_module("ray.cloudpickle").register_pickle_by_value(copy_job)


def ray_processes() -> set[int]:
    """Processes of Ray below this one."""
    children = psutil.Process().children(recursive=True)
    return {p.pid for p in children if p.status() != psutil.STATUS_ZOMBIE}


def test_ray_gives_the_bytes_that_this_process_gives_whatever_dies_on_the_way(
    copying: Any, write_shard: Any, tmp_path: Path
) -> None:
    write_shard("c", 30)
    copying.run(out=tmp_path / "inline", trouble={"c/k029": "reject"})
    trouble = {"a/k001": "exit:1", "b/k004": "raise:1", "c/k010": "exit:1", "c/k029": "reject"}
    before = ray_processes()
    handler = signal.getsignal(signal.SIGTERM)
    summary = copying.run(RAY, trouble=trouble)
    assert summary.failed == {}
    assert summary.exit_code is ExitCode.OK
    assert (summary.units_done, summary.rows_in, summary.rows_rejected) == (13, 45, 1)
    assert copying.files() == copying.files(tmp_path / "inline")
    assert ray_processes() <= before
    assert signal.getsignal(signal.SIGTERM) == handler
    assert copying.run(RAY).units_current == 13  # and Ray is not even started for nothing


def test_poisonous_units_are_set_aside_and_the_rest_is_done(copying: Any) -> None:
    printed = io.StringIO()
    console = Console(file=printed, width=400)
    summary = copying.run(RAY, trouble={"a/k005": "exit", "b/k004": "raise"}, console=console)
    assert summary.exit_code is ExitCode.UNITS_FAILED
    assert set(summary.failed) == {"a-00001", "b-00001"}
    assert summary.failed["a-00001"].startswith("its worker died 2 times (")
    assert summary.failed["b-00001"] == "ValueError: no luck with [bold]b/k004[/] today"
    assert summary.units_done == 3
    assert "b-00001: set aside, ValueError" in printed.getvalue()
    assert not [name for name in copying.files() if ".tmp-" in name]
    assert copying.run().units_done == 2
    assert len(copying.rows()) == 15


def test_what_stops_a_job_stops_it_on_ray_too(copying: Any) -> None:
    before = ray_processes()
    summary = copying.run(RAY, trouble={"open": "user_error"})
    assert (summary.exit_code, summary.stopped_by) == (ExitCode.BAD_INPUT, "the model is not there. Name another.")
    assert ray_processes() <= before


def test_workers_that_die_while_they_load_stop_the_job(copying: Any) -> None:
    summary = copying.run(RAY, trouble={"open": "exit"})
    assert summary.exit_code is ExitCode.STOPPED
    assert "a worker died 2 times while loading its model" in summary.stopped_by
    assert "Is there memory for --workers 2 of them?" in summary.stopped_by
    assert copying.run().units_done == 5
