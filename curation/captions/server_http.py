"""One HTTP request, one connection, one answer; what goes wrong is named by what can be done about it."""

import contextlib
import http.client
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

_CONNECT_SECONDS: Final = 10.0
_ANSWER_LIMIT: Final = 16 << 20
_CHUNK: Final = 1 << 16
_PASSING: Final = frozenset({408, 409, 425, 429})
"""Statuses below 500 that say nothing against the request."""

_NOT_OURS: Final = frozenset({401, 403, 404, 405, 407})
"""Statuses that speak of the server, its model or its key, and not of the request."""


class TroubleError(Exception):
    """The server gave no usable answer this time; the same request may be answered later.

    `status`: that of its answer, 0 if there was none. `doubtful`: it may be dead, stuck or another than it was, and
    should be examined. `wait_seconds`: how long it asked to be left alone.
    """

    def __init__(self, reason: str, *, status: int = 0, doubtful: bool = False, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.status, self.doubtful, self.wait_seconds = status, doubtful, wait_seconds


class RefusedError(Exception):
    """The server will not answer this request, however often it is asked."""


class OpenLines:
    """The connections that one run of requests has open, so that they can be cut when the run is given up."""

    def __init__(self) -> None:
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.given_up = threading.Event()

    def give_up(self) -> None:
        """End all requests under way, now and from now on: their threads meet a connection that failed."""
        with self._lock:
            self.given_up.set()
            for line in self._sockets:
                _shut(line)

    @contextmanager
    def holding(self, line: socket.socket) -> Iterator[None]:
        """A block in which `line` can be cut."""
        with self._lock:
            self._sockets.add(line)
            if self.given_up.is_set():
                _shut(line)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(line)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: a base URL without /v1, and the key that it wants."""

    url: str
    key: str | None = field(default=None, repr=False)

    def get(self, path: str, seconds: float, lines: OpenLines) -> Any:
        """The JSON at `path`. Raises like `post`."""
        return self._ask("GET", path, None, seconds, {}, lines)

    def post(self, path: str, body: Mapping[str, Any], seconds: float, request_id: str, lines: OpenLines) -> Any:
        """The JSON that the server answers to `body` within `seconds`.

        The connection carries this request alone and is closed after it, so its answer cannot be another request's.
        Raises `RefusedError` for a status that speaks against the request (400, 413, 422, ...), and `TroubleError` for
        all else that is no JSON under 2xx: a connection that fails, 5xx, 429, 401, 404, ...
        """
        return self._ask("POST", path, json.dumps(body).encode(), seconds, {"X-Request-Id": request_id}, lines)

    def _ask(
        self, method: str, path: str, body: bytes | None, seconds: float, headers: dict[str, str], lines: OpenLines
    ) -> Any:
        key = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        sent = {"Content-Type": "application/json", "Connection": "close", **headers, **key}
        line = self._line(min(seconds, _CONNECT_SECONDS))
        try:
            line.connect()
            plug = line.sock  # http.client forgets it as soon as the headers of the answer are there
            with lines.holding(plug):
                plug.settimeout(seconds)
                end = time.monotonic() + seconds
                line.request(method, urlsplit(self.url).path + path, body, sent)
                response = line.getresponse()
                content = _read(response, plug, end)
        except TimeoutError:
            raise TroubleError(f"no answer within {seconds:g} s", doubtful=True) from None
        except (OSError, http.client.HTTPException) as error:
            reason = one_line(str(error)) or type(error).__name__
            raise TroubleError(f"connection failed ({reason})", doubtful=True) from None
        finally:
            line.close()
        return _judge(response, content)

    def _line(self, seconds: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=seconds, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, parts.port, timeout=seconds)


def one_line(text: str) -> str:
    """`text` as one line of at most 300 characters."""
    return " ".join(text.split())[:300]


def _judge(response: http.client.HTTPResponse, content: bytes) -> Any:
    status = response.status
    if not 200 <= status < 300:
        reason = f"HTTP {status}: {_message(content)}"
        if status in _PASSING or status in _NOT_OURS or not 400 <= status < 500:
            doubtful = status in _NOT_OURS
            raise TroubleError(reason, status=status, doubtful=doubtful, wait_seconds=_wait_of(response))
        raise RefusedError(reason)
    if not content.strip():
        return None
    try:
        return json.loads(content)
    except ValueError:
        raise TroubleError(f"the answer is no JSON ({one_line(content[:80].decode(errors='replace'))})") from None


def _read(response: http.client.HTTPResponse, plug: socket.socket, end: float) -> bytes:
    content = b""
    while not response.isclosed():  # it closes the socket with the last byte
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        plug.settimeout(left)
        content += response.read(_CHUNK)
        if len(content) > _ANSWER_LIMIT:
            raise http.client.HTTPException(f"an answer of more than {_ANSWER_LIMIT >> 20} MB")
    return content


def _message(content: bytes) -> str:
    """What an error answer says: OpenAI's `error.message`, FastAPI's `detail`, or its text."""
    text = content.decode(errors="replace")
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            error = found.get("error", found)
            found = error.get("message", error.get("detail", error)) if isinstance(error, dict) else error
        text = found if isinstance(found, str) else json.dumps(found)
    return one_line(text) or "no reason given"


def _wait_of(response: http.client.HTTPResponse) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(response.headers.get("Retry-After", ""))
        return min(seconds, 60.0) if math.isfinite(seconds) and seconds > 0 else 0.0
    return 0.0


def _shut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
