"""SIGINT and SIGTERM to the driver of a real command, and then the same command again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from curation.execution.signals import interruptible
from schemas.errors import ExitCode, InterruptedJobError

COPY_JOB = Path(__file__).parents[2] / "support/copy_job.py"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_block_with_its_exit_code_and_restores_the_handlers(number: int, code: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(InterruptedJobError, match=r"run the same command to go on") as error, interruptible():
        signal.raise_signal(number)
    assert error.value.exit_code == code
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_passes_a_stage_that_refuses_a_row_for_any_exception() -> None:
    refused = []

    def careless() -> None:
        with interruptible():
            try:
                signal.raise_signal(signal.SIGTERM)
            except Exception as error:  # noqa: BLE001 - what a careless stage does
                refused.append(error)

    with pytest.raises(InterruptedJobError):
        careless()
    assert refused == []


def test_a_signal_that_a_library_swallowed_is_raised_again() -> None:
    def swallow(check: bool) -> None:
        with interruptible() as interruption:
            with suppress(BaseException):  # what a library may do
                signal.raise_signal(signal.SIGINT)
            if check:
                interruption.check()
                pytest.fail("check passed")

    for check in (True, False):
        with pytest.raises(InterruptedJobError) as error:
            swallow(check)
        assert error.value.exit_code is ExitCode.INTERRUPTED


def test_other_ends_of_the_block_are_left_alone() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match=r"^x$"), interruptible():
        raise ValueError("x")


@pytest.fixture
def whole(copying: Any, tmp_path: Path) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    copying.run(out=tmp_path / "whole")
    return copying.files(tmp_path / "whole")


def start(copying: Any, *arguments: str) -> subprocess.Popen[str]:
    copying.marks.mkdir(exist_ok=True)
    line = [sys.executable, str(COPY_JOB), "--shards", f"{copying.shards}/*.tar", "--out", str(copying.out)]
    return subprocess.Popen(
        [*line, "--marks", str(copying.marks), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(3000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    pytest.fail(f"{path.name} never came")


@pytest.fixture
def family() -> Iterator[list[psutil.Process]]:
    """Processes that must be gone when the test ends."""
    found: list[psutil.Process] = []
    yield found
    _, alive = psutil.wait_procs(found, timeout=20)
    for process in alive:
        process.kill()
    assert not alive


@pytest.mark.parametrize("trouble", ["sleep:1", "swallow:1"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_job_leaves_nothing_partial_and_goes_on(
    copying: Any, whole: dict[str, bytes], number: int, code: int, trouble: str
) -> None:
    process = start(copying, "--trouble", f"a/k005={trouble}")
    wait_for(copying.marks / "a_k005-0", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    name = signal.Signals(number).name
    assert errors.splitlines()[-1].startswith(f"error: {name}: stopped. Units in flight were abandoned")
    assert "1 done, 0 already current" in errors  # the summary is there
    assert "Traceback" not in errors
    left = copying.files()
    assert [name for name in left if name.startswith("ledger/")] == ["ledger/a-00000.json"]
    assert not [name for name in left if ".tmp-" in name or name.startswith("rejects/")]
    assert copying.run().units_done == 4
    assert copying.files() == whole


@pytest.mark.parametrize(
    ("number", "code", "to_all"),
    [pytest.param(signal.SIGINT, 130, True, marks=pytest.mark.slow), (signal.SIGTERM, 143, False)],
)
def test_an_interrupted_job_on_ray_ends_its_workers_too(
    copying: Any, whole: dict[str, bytes], family: list[psutil.Process], number: int, code: int, to_all: bool
) -> None:
    process = start(copying, "--workers", "2", "--cpus-per-worker", "0.5", "--trouble", "a/k005=sleep:1")
    wait_for(copying.marks / "a_k005-0", process)
    family += psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 2
    if to_all:  # as Ctrl-C in a terminal does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.splitlines()[-1].startswith(f"error: {signal.Signals(number).name}: stopped.")
    assert "Traceback" not in errors
    left = copying.files()
    assert "ledger/a-00001.json" not in left
    assert not [name for name in left if ".tmp-" in name]
    assert copying.run().exit_code is ExitCode.OK
    assert copying.files() == whole
