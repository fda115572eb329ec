"""Bring results back into the order of the input after batches have shuffled them."""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class InputOrder(Generic[T]):
    """Takes results by row number, 0 upward, in any order, and hands them out in order."""

    def __init__(self) -> None:
        self._waiting: dict[int, T] = {}
        self._next = 0

    def put(self, number: int, result: T) -> None:
        """Take the result of row `number`."""
        self._waiting[number] = result

    def ready(self) -> Iterator[T]:
        """The results whose turn has come; each is handed out once."""
        while self._next in self._waiting:
            self._next += 1
            yield self._waiting.pop(self._next - 1)
