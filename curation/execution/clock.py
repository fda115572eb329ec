"""Where the time of a unit goes, by named phase."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class PhaseClock:
    """Adds up seconds by phase. Phases may overlap when threads work at once, so they need not sum to the whole."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inside = threading.local()  # seconds of the phases within the one that this thread is in
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block to `name`, except that of phases within it."""
        before = getattr(self._inside, "seconds", 0.0)
        self._inside.seconds = 0.0
        start = time.perf_counter()
        try:
            yield
        finally:
            whole = time.perf_counter() - start
            with self._lock:
                self._seconds[name] += whole - self._inside.seconds
            self._inside.seconds = before + whole

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start

    def phases(self) -> dict[str, float]:
        """Seconds by phase, rounded to milliseconds."""
        with self._lock:
            return {name: round(value, 3) for name, value in sorted(self._seconds.items())}
