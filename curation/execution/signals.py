"""SIGINT and SIGTERM end a job between two steps, with nothing half-published."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.errors import ExitCode, InterruptedJobError

_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class Interruption:
    """Whether a signal has arrived. The handler raises at once; `check` raises again later, in case a library between
    here and there caught the exception."""

    def __init__(self) -> None:
        self._error: InterruptedJobError | None = None

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(number).name
        self._error = InterruptedJobError(
            f"{name}: stopped. Units in flight were abandoned, finished ones are safe; run the same command to go on.",
            _CODES[signal.Signals(number)],
        )
        raise self._error

    def check(self) -> None:
        """Raise if a signal has arrived."""
        if self._error is not None:
            raise self._error


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """Within the block, SIGINT and SIGTERM raise `InterruptedJobError` in the main thread.

    A second signal while the first is being handled has Python's default effect, so that a stuck job can be ended.
    Must be entered in the main thread.
    """
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.arrive) for number in _CODES}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
