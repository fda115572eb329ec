"""Lets requests through together, or one alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_TURN_SECONDS: Final = 0.1


class Gate:
    """Many may be inside at once, or one alone.

    A request that was in flight each time a server died may be what kills it: asked alone, it is found, and those that
    were in flight with it are cleared.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._loners = 0  # waiting or inside
        self._is_taken = False  # by one alone

    @contextmanager
    def passed(self, alone: bool, given_up: threading.Event) -> Iterator[None]:
        """A block inside the gate. Who wants to be alone goes first. No longer waits once `given_up` is set."""
        with self._changed:
            self._loners += alone
            while not given_up.is_set() and ((self._inside > 0 or self._is_taken) if alone else self._loners > 0):
                self._changed.wait(_TURN_SECONDS)
            self._inside += not alone
            self._is_taken = self._is_taken or alone
        try:
            yield
        finally:
            with self._changed:
                self._inside -= not alone
                self._loners -= alone
                if alone:
                    self._is_taken = False
                self._changed.notify_all()
