"""A progress line for people: rewritten in place on a terminal, a plain line every 30 s elsewhere."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from curation.execution.summary import JobSummary

_LINE_EVERY: Final = 30.0
_REFRESH_EVERY: Final = 0.5


class Progress:
    """Shows `summary` while the job runs. `rows_in_flight` counts rows of units that are not finished."""

    def __init__(self, console: Console, summary: JobSummary, rows_in_flight: Callable[[], int]) -> None:
        self._console, self._summary, self._rows_in_flight = console, summary, rows_in_flight
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress", daemon=True)
        self._start = time.perf_counter()
        self.units_due: int | None = None  # known once every shard has been planned
        self.rows_due = 0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._live:
            self._live.stop()

    def line(self) -> str:
        """Where the job stands, in one line."""
        summary = self._summary
        seconds = time.perf_counter() - self._start
        rows = summary.rows_in + self._rows_in_flight()
        rate = rows / seconds if seconds else 0.0
        known = self.units_due is not None
        parts = [
            f"{summary.stage}: {summary.units_done + len(summary.failed):,}/{self.units_due if known else '?'} units",
            f"{rows:,}/{self.rows_due:,}{'' if known else '+'} rows",
            f"{rate:,.1f} rows/s",
            f"{summary.rows_rejected:,} rejected",
        ]
        if known and rate:
            parts.append(f"{_duration((self.rows_due - rows) / rate)} left")
        if summary.failed:
            parts.append(f"{len(summary.failed):,} units failed")
        if summary.limited_by:
            parts.append(f"limited by {summary.limited_by}")
        return ", ".join(parts)

    def _loop(self) -> None:
        while not self._stop.wait(_REFRESH_EVERY if self._live else _LINE_EVERY):
            if self._live:
                self._live.update(Text(self.line()), refresh=True)
            else:
                self._console.print(self.line(), soft_wrap=True, highlight=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
