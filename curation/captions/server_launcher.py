"""A small process between a worker and the server that it started, so that the server never outlives the worker.

Run by its path, with the standard library alone: `python -I -S server_launcher.py COMMAND_AS_JSON [LOG]`. Standard
input is a pipe whose other end only the worker holds: when the worker closes it or dies, by whatever signal, this
process ends the server with all that descends from it. Standard output carries a JSON line when the server is
started (`pid`), and one when it is gone (`exit`, its code, and `tail`, its last words).

It is no child of the worker (it forks once more), so that who ends a worker with its children does not end it too;
if it is killed itself, the kernel kills the server (PR_SET_PDEATHSIG).
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

_GRACE_SECONDS = 5.0
_KILL_SECONDS = 30.0
_TAIL_BYTES = 16384
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class _Output:
    """Takes what the server says, so that it never blocks on it; keeps its last words, and all of it in `log`."""

    def __init__(self, stream: IO[bytes], log: str | None) -> None:
        self._stream, self._log, self._tail = stream, log, b""
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def tail(self) -> str:
        """The last words, once the server and its children are gone."""
        self._thread.join(1.0)
        return self._tail.decode(errors="replace")

    def _pump(self) -> None:
        with open(self._log or os.devnull, "ab", buffering=0) as log:
            while chunk := os.read(self._stream.fileno(), 65536):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
                with contextlib.suppress(OSError):  # a full disk is no reason to stop the server
                    log.write(chunk)


def main(command: list[str], log: str | None) -> None:
    """Start `command`, wait until it ends or the worker lets go, and leave nothing of it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    me = os.getpid()

    def die_with_me() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != me:
            os._exit(1)

    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_me,
        )
    except OSError as error:
        _say({"exit": 127, "tail": f"{command[0]}: {error.strerror}"})
        return
    assert server.stdout is not None
    output = _Output(server.stdout, log)
    try:
        _say({"pid": server.pid})
        while server.poll() is None and not select.select([sys.stdin], [], [], 0.1)[0]:
            pass
    finally:
        _end(server)
        _say({"exit": server.returncode, "tail": output.tail()})


def _end(server: "subprocess.Popen[bytes]") -> None:
    if server.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(_GRACE_SECONDS)
    deadline = time.monotonic() + _KILL_SECONDS
    while (left := _descendants()) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if server.poll() is not None:  # what is left was inherited, and is ours to reap
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass
        time.sleep(0.02)


def _descendants() -> list[int]:
    """Processes that descend from this one: as its subreaper it inherits those whose own parents are gone."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text(errors="replace")
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _say(word: dict[str, object]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the worker is gone
        os.write(1, json.dumps(word).encode() + b"\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
