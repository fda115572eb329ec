"""The servers that a worker may ask: which of them are up, and bringing back those that are not.

A server that gives trouble is examined before the request is blamed, so that a request is given up only against a
server that answers others, and a server that died is brought back once, however many requests it took with it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from curation.captions.server_http import Address, OpenLines, RefusedError, TroubleError
from schemas.errors import GuardError

_TURN_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 30.0

Probe = Callable[[Address, OpenLines], None]
"""Asks a server to caption a made-up picture. Raises `TroubleError` or `RefusedError`."""


class NotUpError(Exception):
    """A server could not be brought up this time; the text says which, why, and what to do."""


class Keeper(Protocol):
    """Knows how to bring one server up."""

    def bring_up(self, lines: OpenLines) -> Address:
        """Start it anew, or see that it is there. Raises `NotUpError`."""

    def is_running(self) -> bool:
        """False if it is known to have ended."""

    def is_hopeless(self, failures: int, seconds: float) -> bool:
        """Whether a server that failed so often, for so long, without an answer between, is given up."""

    def close(self) -> None:
        """End it, if it is ours."""


@dataclass(slots=True)
class _Seat:
    """One server. `address` is None while it is down; failures are counted since its last answer."""

    keeper: Keeper
    address: Address | None = None
    generation: int = 0
    in_flight: int = 0
    failures: int = 0
    failing_since: float = 0.0
    next_try: float = 0.0
    well_at: float = 0.0
    reason: str = ""

    def is_hopeless(self) -> bool:
        return self.address is None and self.keeper.is_hopeless(self.failures, time.monotonic() - self.failing_since)


@dataclass(frozen=True, slots=True)
class Lent:
    """A server as it was lent to one request; another generation of it is another process."""

    seat: _Seat = field(repr=False)
    address: Address
    generation: int


class ServerPool:
    """Lends servers to requests, the least busy first. `pause_seconds` doubles with each failure in a row."""

    def __init__(self, keepers: Sequence[Keeper], probe: Probe, *, pause_seconds: float = 1.0) -> None:
        self._seats = [_Seat(keeper) for keeper in keepers]
        self._probe, self._pause = probe, pause_seconds
        self._lock = threading.Lock()  # of the seats' fields
        self._care = threading.Lock()  # one thread at a time examines servers and brings them up

    def open(self, lines: OpenLines) -> None:
        """Bring all servers up. Raises `GuardError` as soon as one does not come: that is most likely a mistake."""
        for seat in self._seats:
            try:
                self._put_up(seat, seat.keeper.bring_up(lines))
            except NotUpError as error:
                raise GuardError(str(error)) from None

    @contextmanager
    def lent(self, lines: OpenLines) -> Iterator[Lent]:
        """A server for one request; waits while none is up.

        Raises `GuardError` when all are down for good, and `TroubleError` when the run was given up.
        """
        lent = self._take(lines)
        try:
            yield lent
        finally:
            with self._lock:
                lent.seat.in_flight -= 1

    def answered(self, lent: Lent) -> None:
        """It answered a request: all its failures are forgiven."""
        with self._lock:
            lent.seat.well_at, lent.seat.failures = time.monotonic(), 0

    def is_well(self, lent: Lent, lines: OpenLines) -> bool:
        """Whether the server that just gave trouble answers others; if not, it is taken out of use.

        Raises `TroubleError` when the run was given up.
        """
        asked_at, seat = time.monotonic(), lent.seat
        while not self._care.acquire(timeout=_TURN_SECONDS):
            _check_wanted(lines)
        try:
            if seat.address is None or seat.generation != lent.generation:
                return False
            running = seat.keeper.is_running()
            if running and seat.well_at > asked_at:
                return True
            if running:
                self._probe(lent.address, lines)
                seat.well_at = time.monotonic()
                return True
            self._put_down(seat, "it ended")
        except (TroubleError, RefusedError) as error:
            _check_wanted(lines)
            self._put_down(seat, str(error))
        finally:
            self._care.release()
        return False

    def close(self) -> None:
        """End the servers that are ours."""
        for seat in self._seats:
            seat.keeper.close()

    def _take(self, lines: OpenLines) -> Lent:
        while True:
            _check_wanted(lines)
            self._mend(lines)
            with self._lock:
                up = [(seat.in_flight, n, seat, seat.address) for n, seat in enumerate(self._seats) if seat.address]
                if up:
                    _, _, seat, address = min(up, key=lambda found: found[:2])
                    seat.in_flight += 1
                    return Lent(seat, address, seat.generation)
            lines.given_up.wait(_TURN_SECONDS)

    def _mend(self, lines: OpenLines) -> None:
        """Bring up what is down and due, unless another thread is at it."""
        if not self._care.acquire(blocking=False):
            return
        try:
            if all(seat.is_hopeless() for seat in self._seats):
                reasons = "; ".join(f"{seat.reason} ({seat.failures} failures in a row)" for seat in self._seats)
                raise GuardError(f"no captioning server is left: {reasons}. Mend it, then run the same command.")
            for seat in self._seats:
                if seat.address is None and seat.next_try <= time.monotonic():
                    try:
                        self._put_up(seat, seat.keeper.bring_up(lines))
                    except NotUpError as error:
                        _check_wanted(lines)
                        self._put_down(seat, str(error))
        finally:
            self._care.release()

    def _put_up(self, seat: _Seat, address: Address) -> None:
        with self._lock:
            seat.address, seat.generation, seat.well_at = address, seat.generation + 1, time.monotonic()

    def _put_down(self, seat: _Seat, reason: str) -> None:
        now = time.monotonic()
        with self._lock:
            seat.address, seat.reason, seat.failures = None, reason, seat.failures + 1
            if seat.failures == 1:
                seat.failing_since = now
            pause = self._pause * (2 ** min(seat.failures, 10) - 2)  # none after the first failure
            seat.next_try = now + min(_LONGEST_PAUSE_SECONDS, pause)


def _check_wanted(lines: OpenLines) -> None:
    if lines.given_up.is_set():
        raise TroubleError("given up")
