import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from schemas.errors import ExitCode, StorageError, UserError
from training.distributed.world import World, join_world


class Ranks:
    """Two worlds whose ranks are threads and whose broadcast is a list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sent: list[Any] = []
        self._ready = threading.Event()
        monkeypatch.setattr(World, "from_first", lambda world, value: self._broadcast(world, value))

    def _broadcast(self, world: World, value: Any) -> Any:
        if world.rank == 0:
            self._sent.append(value)
            self._ready.set()
        assert self._ready.wait(10)
        return self._sent[0]

    def on_first(self, act: Callable[[], Any]) -> list[Any]:
        """What each rank gets of `act`, or the error that it meets."""
        results: list[Any] = [None, None]

        def rank(number: int) -> None:
            try:
                results[number] = World(number, 2, torch.device("cpu"), None).on_first(act)
            except UserError as error:
                results[number] = error

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_what_rank_0_does_every_rank_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    assert Ranks(monkeypatch).on_first(lambda: done.append(1) or len(done)) == [1, 1]
    assert done == [1]


def test_an_error_of_rank_0_is_every_ranks_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def act() -> None:
        raise StorageError("the disk is full")

    for error in Ranks(monkeypatch).on_first(act):
        assert isinstance(error, StorageError)
        assert error.exit_code == ExitCode.STORAGE
        assert str(error) == "the disk is full"


def test_more_processes_than_devices_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UserError, match="process 5 of this machine has no CUDA device, torch finds 4"):
        join_world("auto")
