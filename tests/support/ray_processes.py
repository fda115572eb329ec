"""The processes of a local Ray below a driver."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil


@contextmanager
def all_gone() -> Iterator[Callable[[int], None]]:
    """Gives a function that remembers every process below the driver of that number; at the end all must be gone.

    A killed driver's Ray leaves some behind that hold nothing of the job and end by themselves within a minute or so of
    asking for a server that is dead too: its two agents, and workers that had not come up yet. Those are ended here.
    """
    found: list[psutil.Process] = []

    def remember(driver: int) -> None:
        found.extend(psutil.Process(driver).children(recursive=True))

    yield remember
    bystanders = [process for process in found if _is_bystander(process)]
    _, alive = psutil.wait_procs([process for process in found if process not in bystanders], timeout=30)
    for process in [*alive, *bystanders]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    assert found
    assert not alive


def workers_of(driver: int) -> list[psutil.Process]:
    """The workers, as far as they are up."""
    return [p for p in psutil.Process(driver).children(recursive=True) if "UnitActor" in " ".join(line_of(p))]


def line_of(process: psutil.Process) -> list[str]:
    """Its command line; empty if it is gone or a zombie."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def _is_bystander(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        words = [process.name(), *process.cmdline()]  # the name alone is cut off at 15 characters
        return any(known in word for known in ("Agent", "RuntimeEnv", "agent", "default_worker.py") for word in words)
    return False
