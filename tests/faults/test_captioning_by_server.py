"""`transformers serve` with a tiny LLaVA behind a captioning job: the server killed, the job killed, nothing left."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from dataset_files import data_of

from curation.scenes.shards import write_laion_shards

MISSING = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
SERVE = (
    f"{sys.executable} -m transformers.cli.transformers serve {{model}} --port {{port}} --host 127.0.0.1 --device cpu"
)

pytestmark = [
    pytest.mark.skipif(
        bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}: pip install -e '.[serve]'"
    ),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def inputs(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Arguments of a job of six units of four rows, two of them broken pictures in each shard, without an engine."""
    folder = tmp_path_factory.mktemp("inputs")
    write_laion_shards(folder, shards=2, rows=12)
    given = ["--shards", str(folder / "*.tar"), "--source", "webdataset", "--model", str(llava)]
    return [*given, "--unit-rows", "4", "--max-new-tokens", "40", "--canary", "0"]


@pytest.fixture(scope="module")
def by_server(inputs: list[str]) -> list[str]:
    return [*inputs, "--engine", "server", "--server-command", SERVE, "--concurrency", "3"]


def job(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "pipelines.caption", *map(str, arguments)]
    return subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def undisturbed(by_server: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "captions"
    with job(*by_server, "--out", out) as process:
        assert process.wait() == 0
    return out


def servers_of(llava: Path) -> list[psutil.Process]:
    """The servers of `llava` that run now, and their launchers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if str(llava) in " ".join(line) and "pipelines.caption" not in line:
                found.append(process)
    return found


def server_itself(llava: Path) -> psutil.Process:
    (server,) = [p for p in servers_of(llava) if "serve" in p.cmdline()]
    return server


@pytest.fixture(autouse=True)
def nothing_is_left(llava: Path) -> Iterator[None]:
    yield
    left = servers_of(llava)
    for process in left:
        process.kill()
    assert not left


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    while not condition():
        assert process.poll() is None, "the job ended before"
        time.sleep(0.01)


def entries(out: Path) -> int:
    folder = out / "ledger"
    return sum(p.suffix == ".json" and p.name[0] != "." for p in folder.iterdir()) if folder.is_dir() else 0


def texts(out: Path) -> dict[str, tuple[str, str, int, int]]:
    columns = ["key", "generated", "finish_reason", "n_prompt_tokens", "n_tokens"]
    rows = [row for path in out.glob("*.parquet") for row in pq.read_table(path, columns=columns).to_pylist()]
    return {row.pop("key"): tuple(row.values()) for row in rows}


def test_the_server_gives_the_captions_of_the_transformers_engine(
    inputs: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    with job(*inputs, "--out", tmp_path / "captions") as process:
        assert process.wait() == 0
    assert texts(undisturbed) == texts(tmp_path / "captions")
    assert len(texts(undisturbed)) == 20


@pytest.mark.parametrize("units", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_server_killed_in_mid_job_is_replaced_and_no_byte_differs(
    units: int, by_server: list[str], llava: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "captions", tmp_path / "log"
    with job(*by_server, "--out", out, "--server-log", log) as process:
        wait_for(lambda: entries(out) >= units and answers_in(log) >= 11, process)  # the checks take ten answers
        server_itself(llava).kill()
        assert process.wait() == 0
    assert sum(path.read_text().count("Uvicorn running") for path in log.iterdir()) == 2
    assert data_of(out) == data_of(undisturbed)


def answers_in(log: Path) -> int:
    return sum(path.read_text().count("/v1/chat/completions") for path in log.iterdir()) if log.is_dir() else 0


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGINT))]
)
def test_a_job_that_is_killed_leaves_no_server_and_the_same_command_goes_on(
    number: int, by_server: list[str], llava: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    with job(*by_server, "--out", out) as process:
        wait_for(lambda: entries(out) >= 2, process)
        at_work = servers_of(llava)
        process.send_signal(number)
        assert process.wait() in (-signal.SIGKILL, 128 + number)
    assert len(at_work) == 2
    _, alive = psutil.wait_procs(at_work, timeout=30)
    assert not alive
    assert entries(out) < 6
    if number != signal.SIGKILL:
        return
    with job(*by_server, "--out", out) as process:
        assert process.wait() == 0
    assert data_of(out) == data_of(undisturbed)


def test_a_job_killed_while_its_server_starts_leaves_none(by_server: list[str], llava: Path, tmp_path: Path) -> None:
    with job(*by_server, "--out", tmp_path / "captions") as process:
        wait_for(lambda: len(servers_of(llava)) == 2, process)
        at_work = servers_of(llava)
        process.kill()
    _, alive = psutil.wait_procs(at_work, timeout=30)
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_killed_ray_worker_or_driver_leaves_no_server_and_no_byte_differs(
    victim: str, by_server: list[str], llava: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "captions"
    with job(*by_server, "--out", out, "--executor", "ray") as process:
        wait_for(lambda: entries(out) >= 1, process)
        family = psutil.Process(process.pid).children(recursive=True)
        at_work = servers_of(llava)
        actors = [p for p in family if "UnitActor" in " ".join(_line_of(p))]
        for killed in actors if victim == "worker" else [process]:
            killed.kill()
        _, alive = psutil.wait_procs(at_work, timeout=30)
        assert actors
        assert not alive
        assert process.wait() == (0 if victim == "worker" else -signal.SIGKILL)
    if victim == "driver":
        for left in family:  # Ray's own helpers
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        with job(*by_server, "--out", out) as process:
            assert process.wait() == 0
    assert data_of(out) == data_of(undisturbed)


def _line_of(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
