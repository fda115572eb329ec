"""SIGKILL at many points of a captioning job, then the same command again: an undisturbed run's files, to the byte."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from dataset_files import data_of
from fork_server import ForkServer

from curation.demo.models import make_llava
from curation.scenes.shards import write_laion_shards

Run = Callable[..., int]
UNITS = 6


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a job of six units of four rows, two of them broken pictures in each shard."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("inputs")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make_llava(folder / "llava", image_px=28)
    write_laion_shards(folder, shards=2, rows=12)
    given = ["--shards", str(folder / "*.tar"), "--source", "webdataset", "--model", str(folder / "llava")]
    return [*given, "--unit-rows", "4", "--batch-size", "2", "--max-new-tokens", "4", "--decode-threads", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run one job in a fresh process: `run(arguments, kill=(where, call, moment)) -> exit status`."""
    with ForkServer("caption_child.py", tmp_path_factory.mktemp("log") / "jobs.log") as server:
        yield server.run


@pytest.fixture(scope="module")
def undisturbed(inputs: list[str], run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "captions"
    assert run([*inputs, "--out", str(out)]) == 0
    return data_of(out)


def keys_of(out: Path) -> list[str]:
    files = [*out.glob("*.parquet"), *(out / "rejects").glob("*.parquet")]
    return sorted(key for file in files for key in pq.read_table(file)["key"].to_pylist())


KILLS = [
    ("index", 1, "before"),
    ("index", 2, "after"),
    ("write_text", 1, "after"),  # dataset.json is there, nothing else
    ("process", 2, "before"),
    ("text_of", 15, "before"),  # in the middle of a unit
    ("keep", 7, "after"),
    ("reject", 1, "after"),
    ("finish", 2, "after"),  # an output is whole under its temporary name
    ("commit", 3, "after"),
    ("publish", 4, "before"),
    ("publish", 5, "after"),
    ("publish", 12, "after"),
]


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: "-".join(map(str, kill)))
def test_a_killed_job_goes_on_to_the_files_of_an_undisturbed_one(
    kill: tuple[str, int, str], inputs: list[str], run: Run, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    arguments = [*inputs, "--out", str(out)]
    assert run(arguments, kill) == -signal.SIGKILL
    assert run(arguments) == 0
    assert data_of(out) == undisturbed
    keys = keys_of(out)
    assert len(keys) == len(set(keys)) == 24
    assert not [p for p in out.rglob("*") if ".tmp-" in p.name]


def test_killed_again_and_again_it_still_arrives(
    inputs: list[str], run: Run, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    arguments = [*inputs, "--out", str(out)]
    for _ in range(12):
        if run(arguments, ("publish", 4, "before")) == 0:
            break
    else:
        pytest.fail("twelve runs, each killed at its fourth file, did not add up to a whole one")
    assert data_of(out) == undisturbed


def _ray_job(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "pipelines.caption", *arguments, "--executor", "ray", "--attempts", "5"]
    return subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)


def _wait_for_entries(out: Path, count: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait until `count` units are done; False if the job ended before."""
    ledger = out / "ledger"
    while process.poll() is None:
        if ledger.is_dir() and sum(p.suffix == ".json" and p.name[0] != "." for p in ledger.iterdir()) >= count:
            return True
        time.sleep(0.02)
    return False


def _workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [p for p in children if any("UnitActor" in part for part in _line_of(p))]


def _is_at_work(process: psutil.Process) -> bool:
    """Whether it holds units or runs the cluster: an actor, the raylet or the control store."""
    line = _line_of(process)
    program = Path(line[0]).name if line else ""
    return program in ("raylet", "gcs_server") or any("UnitActor" in part for part in line)


def _line_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):  # a zombie counts as gone too
        return process.cmdline()
    return []


@pytest.mark.slow
def test_a_killed_ray_worker_is_replaced_and_its_unit_redone(
    inputs: list[str], undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    killed = 0
    with _ray_job([*inputs, "--out", str(out), "--max-new-tokens", "4"]) as process:
        for count in (1, 3):
            if _wait_for_entries(out, count, process):
                for worker in _workers(process):
                    worker.kill()
                    killed += 1
        assert process.wait(180) == 0
    assert killed >= 1
    assert data_of(out) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kills_of_ray_workers_at_ten_moments_change_nothing(inputs: list[str], run: Run, tmp_path: Path) -> None:
    longer = [*inputs, "--unit-rows", "1", "--max-new-tokens", "48"]
    assert run([*longer, "--out", str(tmp_path / "undisturbed")]) == 0
    out, killed, moments = tmp_path / "captions", 0, random.Random(0)
    with _ray_job([*longer, "--out", str(out), "--attempts", "30"]) as process:
        for count in range(1, 20, 2):
            if not _wait_for_entries(out, count, process):
                break
            time.sleep(moments.uniform(0.0, 0.1))
            for worker in _workers(process):
                worker.kill()
                killed += 1
        assert process.wait(300) == 0
    assert killed == 10
    assert data_of(out) == data_of(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_killed_ray_driver_leaves_no_worker_and_the_same_command_goes_on(
    inputs: list[str], run: Run, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    with _ray_job([*inputs, "--out", str(out)]) as process:
        assert _wait_for_entries(out, 1, process)
        family = psutil.Process(process.pid).children(recursive=True)
        at_work = [p for p in family if _is_at_work(p)]
        process.kill()
    _, alive = psutil.wait_procs(at_work, timeout=20)
    for left in family:  # Ray's agents, and workers that were not yet up: they hold no unit and no file
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    assert not alive
    assert run([*inputs, "--out", str(out)]) == 0
    assert data_of(out) == undisturbed


def test_a_full_disk_ends_in_one_clear_line_and_the_job_recovers(
    inputs: list[str], run: Run, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    # No file of the child may grow past 2 kB: its outputs meet the same refusal in mid-write as on a full disk.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY)); "
    code = limit + "import sys; from pipelines import caption; from pipelines.command import run; run(caption.main)"
    line = [sys.executable, "-c", code, *inputs, "--out", str(out)]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, timeout=180)
    assert ended.returncode == 4
    assert "error: " in ended.stderr.splitlines()[-1]
    assert str(out) in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not list(out.glob("*.parquet"))
    assert not [p for p in out.rglob("*") if ".tmp-" in p.name]
    assert run([*inputs, "--out", str(out)]) == 0
    assert data_of(out) == undisturbed
