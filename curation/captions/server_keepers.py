"""How servers are brought up: those that were there before, found by URL, and those that a worker starts itself."""

import os
import socket
import time
from typing import Final

from curation.captions.server_http import Address, OpenLines, RefusedError, TroubleError
from curation.captions.server_pool import NotUpError, Probe
from curation.captions.server_process import Ended, ServerProcess, fill_in, free_port

_HEALTH_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.25
_PORT_TRIES: Final = 3
_KEY_VARIABLE: Final = "LATENTMILL_SERVER_KEY"


class FoundServer:
    """A server that somebody else runs. `check` is passed before it is used, `patience_seconds` is how long one that
    went away is waited for."""

    def __init__(self, url: str, check: Probe, *, patience_seconds: float) -> None:
        self._address = Address(url, os.environ.get(_KEY_VARIABLE))
        self._check, self._patience = check, patience_seconds

    def bring_up(self, lines: OpenLines) -> Address:
        """See that it captions. Raises `NotUpError`."""
        try:
            self._check(self._address, lines)
        except (TroubleError, RefusedError) as error:
            raise NotUpError(
                f"--server-url {self._address.url}: {error}. Start the server, or check its URL and --model; then run "
                f"the same command."
            ) from None
        return self._address

    def is_running(self) -> bool:
        """As far as can be known from here."""
        return True

    def is_hopeless(self, failures: int, seconds: float) -> bool:
        """When it was waited for in vain."""
        return failures > 0 and seconds > self._patience

    def close(self) -> None:
        """It is not ours to end."""


class OwnServer:
    """A server that this process starts from a command template, and ends. `check` is passed before it is used."""

    def __init__(
        self,
        command: str,
        model: str,
        revision: str | None,
        check: Probe,
        *,
        start_seconds: float,
        restarts: int,
        log_folder: str | None,
    ) -> None:
        self._command, self._model, self._revision = command, model, revision
        self._check, self._start_seconds, self._restarts = check, start_seconds, restarts
        self._log = _log_file(log_folder) if log_folder else None
        self._process: ServerProcess | None = None

    def bring_up(self, lines: OpenLines) -> Address:
        """End what is left of it, start it on a free port and wait until it captions. Raises `NotUpError`."""
        tries = 0
        while True:
            self.close()
            tries += 1
            port = free_port()
            self._process = ServerProcess(fill_in(self._command, self._model, self._revision, port), self._log)
            address = Address(f"http://127.0.0.1:{port}", os.environ.get(_KEY_VARIABLE))
            ended = self._wait(self._process, address, lines)
            if ended is None:
                return address
            if not ended.port_was_taken or tries == _PORT_TRIES:
                break
        raise NotUpError(
            f"--server-command: the server ended with code {ended.code} before it captioned (last words: "
            f"{ended.last_words}); {self._advice()}."
        )

    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.ended is None

    def is_hopeless(self, failures: int, seconds: float) -> bool:
        """After more failures in a row than it may be restarted."""
        return failures > self._restarts

    def close(self) -> None:
        """End it, with all its processes."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _wait(self, process: ServerProcess, address: Address, lines: OpenLines) -> Ended | None:
        """Wait until it captions, or has ended. Raises `NotUpError` past the deadline, and for a refusal."""
        end = time.monotonic() + self._start_seconds
        reason = "nothing yet"
        while time.monotonic() < end and not lines.given_up.is_set():
            if process.ended is not None:
                return process.end()
            try:
                _require_health(address, lines)
                self._check(address, lines)
                return None
            except RefusedError as error:
                process.end()
                raise NotUpError(f"--server-command: the server is up, but {error}; {self._advice()}.") from None
            except TroubleError as error:
                reason = str(error)
            lines.given_up.wait(_POLL_SECONDS)
        words = process.end().last_words
        raise NotUpError(
            f"--server-command: the server did not caption within {self._start_seconds:g} s ({reason}; last words: "
            f"{words}); {self._advice()}, or raise --server-start-timeout."
        )

    def _advice(self) -> str:
        return f"see {self._log}" if self._log else "see all that it says with --server-log DIR"


def _require_health(address: Address, lines: OpenLines) -> None:
    """Raise `TroubleError` unless the server says that it is ready: by /health, or /v1/models where there is none."""
    try:
        address.get("/health", _HEALTH_SECONDS, lines)
    except TroubleError as error:
        if error.status != 404:
            raise
        address.get("/v1/models", _HEALTH_SECONDS, lines)


def _log_file(folder: str) -> str:
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"server-{socket.gethostname()}-{os.getpid()}.log")
