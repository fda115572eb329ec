"""A process that has imported a command, and forks a child for each job that it is told to run.

Importing costs seconds and a campaign runs many jobs. A line of JSON on stdin names a job's arguments and when it is to
be killed; a line of JSON on stdout answers with its exit status.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fault_points import Places, kill_at

from pipelines.command import run


def serve(main: Callable[[Sequence[str]], int], places: Places) -> None:
    """What the process does: run `main` in a child for each line, until there are no more."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            with open(order["log"], "wb", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            if order["kill"]:
                kill_at(places, *order["kill"])
            run(main, order["arguments"])
        if order["after"] is not None:
            time.sleep(order["after"])
            os.kill(child, signal.SIGKILL)  # it is not waited for yet, so the number is still its own
        _, status = os.waitpid(child, 0)
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


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
        self, arguments: Sequence[str], kill: tuple[str, int, str] | None = None, after: float | None = None
    ) -> None:
        """Begin a job: one that kills itself at a place of `serve`'s, or is killed `after` so many seconds."""
        assert self._process.stdin is not None
        order = {"arguments": list(arguments), "kill": kill, "after": after, "log": str(self._log)}
        print(json.dumps(order), file=self._process.stdin, flush=True)

    def wait(self) -> int:
        """The exit status of the job that was begun; negative: a signal's number."""
        assert self._process.stdout is not None
        return int(json.loads(self._process.stdout.readline()))

    def run(
        self, arguments: Sequence[str], kill: tuple[str, int, str] | None = None, after: float | None = None
    ) -> int:
        """Begin a job and wait for it."""
        self.start(arguments, kill, after)
        return self.wait()

    @property
    def said(self) -> str:
        """What the latest job printed."""
        return self._log.read_text(errors="replace")
