"""Stop at a step boundary when asked by a signal, rather than in the middle of something."""

import signal
from types import FrameType, TracebackType
from typing import Final

from schemas.errors import ExitCode, InterruptedJobError

_EXIT_CODES: Final = {
    signal.SIGINT: ExitCode.INTERRUPTED,
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGUSR1: ExitCode.TERMINATED,  # what batch systems send ahead of a time limit
}


class StopSignals:
    """While entered, remembers SIGINT, SIGTERM and SIGUSR1 in `received` (0 for none) instead of dying of them."""

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> "StopSignals":
        self._before = {number: signal.signal(number, self._remember) for number in _EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def interrupted(number: int, step: int) -> InterruptedJobError:
    """The error that ends a run stopped by signal `number` after it was saved at `step`."""
    asked = signal.Signals(number)
    return InterruptedJobError(
        f"stopped by {asked.name} and saved at step {step}. Run the same command to go on.", _EXIT_CODES[asked]
    )
