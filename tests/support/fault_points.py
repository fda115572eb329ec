"""Where a process can be made to kill itself, for tests that then look at what is left."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

Places = Mapping[str, tuple[Any, str]]
"""By name: the module or class that holds a function, and the function's name there."""


def kill_at(places: Places, where: str, call: int, moment: str | float) -> None:
    """From now on, SIGKILL this process `before` or `after` the numbered call of the function named `where`, or so many
    seconds after it was begun."""
    owner, name = places[where]
    alarm = killed_after(moment) if isinstance(moment, float) else lambda: None
    whole: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == call:
            alarm()
        result = whole(*arguments, **named)
        if calls == call and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def killed_after(seconds: float) -> Callable[[], None]:
    """What begins the countdown of a process of its own, which then kills this one wherever it stands.

    A thread would only ever strike where Python lets another thread run.
    """
    victim = os.pidfd_open(os.getpid())
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(writing)
        if os.read(reading, 1):  # nothing if the victim ended before
            time.sleep(seconds)
            try:
                signal.pidfd_send_signal(victim, signal.SIGKILL)
            except ProcessLookupError:
                os._exit(1)
        os._exit(0)
    os.close(reading)
    return lambda: os.write(writing, b".") and None
