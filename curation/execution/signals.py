"""SIGINT and SIGTERM end a job between two steps, with nothing half-published."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from schemas.errors import ExitCode, InterruptedJobError

_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class Interruption:
    """Whether a signal has arrived. The handler raises at once; `check` raises again later, in case a library between
    here and there caught the exception.

    What is raised is a KeyboardInterrupt: a stage that refuses a row for any `Exception` must not take the end of the
    job for a fault of the row, and Ray's own waits let no other exception of a signal handler through.
    """

    def __init__(self) -> None:
        self.error: InterruptedJobError | None = None

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        signal.signal(number, signal.SIG_DFL)
        name = signal.Signals(number).name
        self.error = InterruptedJobError(
            f"{name}: stopped. Units in flight were abandoned, finished ones are safe; run the same command to go on.",
            _CODES[signal.Signals(number)],
        )
        raise KeyboardInterrupt(name)

    def check(self) -> None:
        """Raise if a signal has arrived."""
        if self.error is not None:
            raise KeyboardInterrupt(str(self.error))


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """A block that SIGINT and SIGTERM leave by `InterruptedJobError`. Must be entered in the main thread.

    A second signal while the first is being handled has its default effect, so that a stuck job can be ended.
    """
    interruption = Interruption()
    before = {number: signal.signal(number, interruption.arrive) for number in _CODES}
    try:
        yield interruption
        interruption.check()
    except KeyboardInterrupt:
        if interruption.error is None:
            raise
        raise interruption.error from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
