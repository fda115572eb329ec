import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from curation.captions.server_process import ServerProcess, check_command, fill_in, free_port
from schemas.errors import UserError

FAMILY = """
import os, subprocess, sys, time

def start(**options):
    nothing = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=nothing, **options).pid

if sys.argv[1] == "orphan":
    print(start(start_new_session=True, stderr=subprocess.DEVNULL))
    sys.exit()
line = [sys.executable, sys.argv[0], "orphan"]
orphan = int(subprocess.run(line, capture_output=True, text=True).stdout)
with open(sys.argv[1] + ".new", "w") as file:
    print(os.getpid(), start(), start(start_new_session=True), orphan, file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
"""A server with a child, a child in a session of its own, and a grandchild whose parent is gone."""

WORKER = """
import sys, time
from curation.captions.server_process import ServerProcess
server = ServerProcess(sys.argv[1:])
print(server.pid, flush=True)
time.sleep(600)
"""


def family_command(folder: Path) -> list[str]:
    (folder / "family.py").write_text(FAMILY)
    return [sys.executable, str(folder / "family.py"), str(folder / "pids")]


def family(pids: Path) -> list[psutil.Process]:
    """The processes of the server that writes `pids`, once all are there."""
    while not pids.exists():
        time.sleep(0.01)
    return [psutil.Process(int(pid)) for pid in pids.read_text().split()]


def launcher_of(server: psutil.Process) -> psutil.Process:
    parent = server.parent()
    assert parent is not None
    assert any("server_launcher.py" in part for part in parent.cmdline())
    return parent


def all_end(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """A process that started a server, and the server's processes."""
    line = [sys.executable, "-c", WORKER, *family_command(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        found = family(tmp_path / "pids")
        yield process, found
        process.kill()
    for left in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()


def test_ending_a_server_ends_all_that_descends_from_it(tmp_path: Path) -> None:
    server = ServerProcess(family_command(tmp_path))
    processes = family(tmp_path / "pids")
    assert server.ended is None
    launcher = launcher_of(processes[0])
    assert server.end().code == -signal.SIGTERM
    assert all_end([*processes, launcher])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_server_does_not_outlive_the_worker_that_started_it(number: int, worker: Any) -> None:
    process, processes = worker
    launcher = launcher_of(processes[0])
    assert launcher not in psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert all_end([*processes, launcher])


def test_a_server_ends_when_its_launcher_is_killed(tmp_path: Path) -> None:
    server = ServerProcess([sys.executable, "-c", "import time; time.sleep(600)"])
    process = psutil.Process(server.pid)
    launcher_of(process).kill()
    assert all_end([process])
    ended = server.end()
    assert (ended.code, ended.tail) == (-9, "its launcher was killed")


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path({str(ready)!r}).touch(); "
    server = ServerProcess([sys.executable, "-c", code + "time.sleep(600)"])
    while not ready.exists():
        time.sleep(0.01)
    assert server.end().code == -signal.SIGKILL


def test_a_server_that_ends_by_itself_says_how_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(child.pid); print('out of memory', file=sys.stderr); sys.exit(3)"
    )
    server = ServerProcess([sys.executable, "-c", code], str(log))
    while server.ended is None:
        time.sleep(0.01)
    assert (server.ended.code, server.ended.last_words) == (3, "out of memory")
    assert log.read_text().splitlines()[1] == "out of memory"
    assert not psutil.pid_exists(int(log.read_text().split()[0]))
    server.end()


def test_a_server_that_talks_much_is_not_held_up_and_only_its_end_is_kept() -> None:
    code = "for number in range(200000): print('line', number)"
    server = ServerProcess([sys.executable, "-c", code])
    while server.ended is None:
        time.sleep(0.01)
    assert server.ended.last_words == "line 199999"
    assert len(server.ended.tail) <= 16384
    server.end()


def test_a_command_that_does_not_exist_is_told() -> None:
    server = ServerProcess(["/no/such/program"])
    while server.ended is None:
        time.sleep(0.01)
    assert (server.ended.code, server.ended.last_words) == (127, "/no/such/program: No such file or directory")
    server.end()


def test_a_template_is_filled_in_and_braces_of_json_stay() -> None:
    template = """vllm serve {model} --port {port} --limit-mm-per-prompt '{"image": 1}' --revision={revision}"""
    check_command(template, "main")
    limit = json.dumps({"image": 1})
    assert fill_in(template, "/a b/llava", "main", 81) == [
        *("vllm", "serve", "/a b/llava", "--port", "81", "--limit-mm-per-prompt", limit, "--revision=main")
    ]


@pytest.mark.parametrize(
    ("template", "revision", "says"),
    [
        ("", None, "empty"),
        ("serve 'x --port {port}", None, "No closing quotation"),
        ("serve {model}", None, "has no {port}"),
        ("serve {model} --port {port} --gpu {gpu}", None, "{gpu} is unknown"),
        ("serve {model} --port {port}", "abc", "go together"),
        ("serve {model} --port {port} --revision {revision}", None, "go together"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_told_in_one_line(
    template: str, revision: str | None, says: str
) -> None:
    with pytest.raises(UserError, match="--server-command") as error:
        check_command(template, revision)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_free_port_can_be_listened_on() -> None:
    assert 1024 < free_port() < 65536
