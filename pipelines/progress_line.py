"""A plain line on stderr from time to time, for loops that take long."""

import sys
import time
from typing import Final

_SECONDS: Final = 30.0  # between two lines


class ProgressLine:
    """How far `total` things of the name `what` are. Says nothing of work that ends before the first line is due."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._started = self._last = time.monotonic()

    def add(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._last < _SECONDS:
            return
        self._last = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate / 60 if rate else 0.0
        print(
            f"{self._what}: {self._done:,} of {self._total:,}, {rate:,.1f} a second, {left:,.0f} min left",
            file=sys.stderr,
            flush=True,
        )
