"""Where a process can be made to kill itself, for tests that then look at what is left."""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

Places = Mapping[str, tuple[Any, str]]
"""By name: the module or class that holds a function, and the function's name there."""


def kill_at(places: Places, where: str, call: int, moment: str) -> None:
    """From now on, SIGKILL this process `before` or `after` the numbered call of the function named `where`."""
    owner, name = places[where]
    whole: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(*arguments, **named)
        if calls == call and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)
