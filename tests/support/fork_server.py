"""A process that has imported a command, and forks a child for each job that it is told to run.

Importing costs seconds and a campaign runs many jobs. A line of JSON on stdin names a job's arguments and when it is to
be killed; a line of JSON on stdout answers with its exit status. A job may have several ranks, as under torchrun.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fault_points import Places, kill_at

from pipelines.command import run

Kill = tuple[str, int, str | float]
"""A place of `serve`'s, which of its calls, and `before` or `after` it or seconds from its beginning."""


def serve(main: Callable[[Sequence[str]], int], places: Places) -> None:
    """What the process does: run `main` in a child for each line, until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        ranks, port = max(1, order["ranks"]), _free_port() if order["ranks"] else 0
        children = [_child(main, places, order, rank, port) for rank in range(ranks)]
        if order["after"] is not None:
            time.sleep(order["after"])
            os.kill(children[0], signal.SIGKILL)  # it is not waited for yet, so the number is still its own
        print(json.dumps(_ended(children)), flush=True)


def _child(main: Callable[[Sequence[str]], int], places: Places, order: dict[str, Any], rank: int, port: int) -> int:
    """Fork one rank of a job; its number. The first one is killed, and writes the log."""
    child = os.fork()
    if child == 0:
        with open(order["log"] + (f".{rank}" if rank else ""), "wb", buffering=0) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if order["ranks"]:
            here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["ranks"], "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in here.items()}, MASTER_ADDR="127.0.0.1")
        if order["kill"] and rank == 0:
            kill_at(places, *order["kill"])
        run(main, order["arguments"])
    return child


def _ended(children: Sequence[int]) -> int:
    """Wait for all ranks; the exit status of the first. Once that one is killed, so are the others."""
    _, status = os.waitpid(children[0], 0)
    code = os.waitstatus_to_exitcode(status)
    for child in children[1:]:
        if code < 0:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        code = code or os.waitstatus_to_exitcode(status)
    return code


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ForkServer:
    """Such a process, seen from outside: `script`, beside this file, calls `serve`; `log` gets what the latest job
    printed."""

    def __init__(self, script: str, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()

    def start(
        self, arguments: Sequence[str], kill: Kill | None = None, after: float | None = None, ranks: int = 0
    ) -> None:
        """Begin a job: one that kills itself at a place of `serve`'s, or is killed `after` so many seconds. Of several
        `ranks`, it is the first that is killed."""
        assert self._process.stdin is not None
        order = {"arguments": list(arguments), "kill": kill, "after": after, "ranks": ranks, "log": str(self._log)}
        print(json.dumps(order), file=self._process.stdin, flush=True)

    def wait(self) -> int:
        """The exit status of the job that was begun; negative: a signal's number."""
        assert self._process.stdout is not None
        return int(json.loads(self._process.stdout.readline()))

    def run(
        self, arguments: Sequence[str], kill: Kill | None = None, after: float | None = None, ranks: int = 0
    ) -> int:
        """Begin a job and wait for it."""
        self.start(arguments, kill, after, ranks)
        return self.wait()

    @property
    def said(self) -> str:
        """What the latest job printed."""
        return self._log.read_text(errors="replace")
