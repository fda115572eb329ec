"""A server that a worker starts for itself, through a launcher that ends it when the worker is gone."""

import json
import re
import select
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from schemas.errors import UserError

_LAUNCHER: Final = Path(__file__).with_name("server_launcher.py")
_END_SECONDS: Final = 60.0
_FIELDS: Final = ("model", "revision", "port")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a server ended: its exit code (negative: a signal) and the end of what it printed."""

    code: int
    tail: str

    @property
    def last_words(self) -> str:
        """The last line that it printed, in at most 300 characters."""
        lines = [line.strip() for line in self.tail.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    @property
    def port_was_taken(self) -> bool:
        """Whether another process had its port."""
        return "address already in use" in self.tail.lower()


class ServerProcess:
    """A running command. It ends with `end`, and with the process that started it, however that one ends."""

    def __init__(self, command: Sequence[str], log: str | None = None) -> None:
        arguments = [json.dumps(list(command)), *([log] if log else [])]
        launcher = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        launcher.wait()  # it has forked: what goes on is no child of ours
        self._hold, self._words = launcher.stdin, launcher.stdout
        self._ended: Ended | None = None
        self.pid: int | None = None
        self._listen()

    @property
    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        while self._ended is None and select.select([self._words], [], [], 0)[0]:
            self._listen()
        return self._ended

    def end(self) -> Ended:
        """End it, with all its processes."""
        self._hold.close()
        while self._ended is None and select.select([self._words], [], [], _END_SECONDS)[0]:
            self._listen()
        self._words.close()
        self._ended = self._ended or Ended(-9, "its launcher does not answer")
        return self._ended

    def _listen(self) -> None:
        line = self._words.readline()
        word: dict[str, Any] = json.loads(line) if line else {"exit": -9, "tail": "its launcher was killed"}
        if "pid" in word:
            self.pid = int(word["pid"])
        else:
            self._ended = Ended(int(word["exit"]), str(word["tail"]))


def check_command(template: str, revision: str | None) -> None:
    """Raise `UserError` unless `template` can be filled in."""
    try:
        parts = shlex.split(template)
    except ValueError as error:
        raise UserError(f"--server-command: {error}. Quote it like a line of a shell.") from None
    if not parts:
        raise UserError("--server-command: empty. Give a command such as 'vllm serve {model} --port {port}'.")
    found = {name for part in parts for name in re.findall(r"\{([a-z_]+)\}", part)}
    unknown = sorted(found - set(_FIELDS))
    if unknown:
        raise UserError(
            f"--server-command: {{{unknown[0]}}} is unknown. Known are {{model}}, {{revision}} and {{port}}."
        )
    if "port" not in found:
        raise UserError("--server-command: has no {port}, so no two servers could run on one machine. Add it.")
    if ("revision" in found) != (revision is not None):
        raise UserError("--server-command: {revision} and --revision go together. Give both or neither.")


def fill_in(template: str, model: str, revision: str | None, port: int) -> list[str]:
    """The command of a template; braces that are no field (as in JSON) stay."""
    values = {"{model}": model, "{revision}": revision or "", "{port}": str(port)}
    command = shlex.split(template)
    for field, value in values.items():
        command = [part.replace(field, value) for part in command]
    return command


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
