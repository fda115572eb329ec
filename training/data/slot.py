"""Memory of micro-batches that is used again and again: making it anew would cost more than reading into it."""

import math

import torch
from torch import Tensor


class Slot:
    """The memory of one micro-batch. It grows to the largest, and is then never made again.

    `pin` asks for page-locked memory: a copy from any other makes the host wait for the GPU.
    """

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._memory: dict[str, Tensor] = {}
        self._rows = torch.empty(0, 0, 0, dtype=torch.uint8)
        self._filled: list[int] = []

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with whatever the memory holds, which it shares with all former ones of that name."""
        size = math.prod(shape) * dtype.itemsize
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = torch.empty(size, dtype=torch.uint8, pin_memory=self._pin)
        return self._memory[name][:size].view(dtype).view(shape)

    def take_rows(self, shape: tuple[int, int, int]) -> "Rows":
        """Memory for at least `shape` [B, L, R] bytes in rows of a length of its own, see `Rows`."""
        if any(have < needed for have, needed in zip(self._rows.shape, shape, strict=True)):
            grown = [max(pair) for pair in zip(self._rows.shape, shape, strict=True)]
            self._rows = torch.zeros(grown, dtype=torch.uint8, pin_memory=self._pin)
            self._filled = [0] * grown[0]
        return Rows(self._rows[: shape[0]], self._filled)


class Rows:
    """Ragged rows in `memory` [B, L, R], zero behind what each holds: only what the row before left there is erased.

    That is why rows lie as far apart as the longest ever seen: filling up a batch whose rows lie as close as they can
    would write about as much as is read.
    """

    def __init__(self, memory: Tensor, filled: list[int]) -> None:
        self.memory = memory
        self._bytes, self._filled = memory.view(len(memory), math.prod(memory.shape[1:])).numpy(), filled

    def write_to(self, row: int, size: int) -> memoryview:
        """The first `size` bytes of a row, to be written; what is behind is zero."""
        if self._filled[row] > size:
            self._bytes[row, size : self._filled[row]] = 0
        self._filled[row] = size
        return self._bytes[row].data[:size]
