"""Keys and values of a batch whose rows come and go: a row that has ended leaves its slot to another one in place.

A slot is a row of a block of columns in each layer. A row begins at the first column and writes each token into the
next one, so its columns are its positions, nothing is ever moved, and no row depends on how long another one is.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from transformers import Cache

_ROUND_TO: Final = 64


class SlotCache:
    """The blocks of all layers, and how long each row is. Slots are numbered 0 to B - 1.

    `keys` and `values` hold [B, H, C, D] for each layer, `lengths` [B] the tokens of each row, 0 where a slot is free.
    Free slots take part in each step with a token of their own, whose numbers nobody reads.
    """

    def __init__(self, first: Cache, slots: int, room: int) -> None:
        """Blocks for rows like those of `first`, a cache after prefill, with `room` columns beyond them."""
        columns = -(-(first.layers[0].keys.shape[2] + room) // _ROUND_TO) * _ROUND_TO
        self.lengths = [0] * slots
        self.keys, self.values = (
            [torch.zeros(slots, t.shape[1], columns, t.shape[3], dtype=t.dtype, device=t.device) for t in layers]
            for layers in ([layer.keys for layer in first.layers], [layer.values for layer in first.layers])
        )

    @property
    def columns(self) -> int:
        """Columns that there are."""
        return int(self.keys[0].shape[2])

    def positions(self) -> Tensor:
        """Where the next token of each row goes, [B]. There are columns for it."""
        if max(self.lengths) == self.columns:
            self._grow(self.columns + 1)
        return torch.tensor(self.lengths, device=self.keys[0].device)

    def admit(self, slots: Sequence[int], fresh: Cache) -> None:
        """Put the rows of `fresh`, a cache after prefill of prompts of one length, into free `slots`."""
        tokens = int(fresh.layers[0].keys.shape[2])
        if tokens >= self.columns:
            self._grow(tokens + 1)
        for keys, values, layer in zip(self.keys, self.values, fresh.layers, strict=True):
            for slot, row_keys, row_values in zip(slots, layer.keys, layer.values, strict=True):
                keys[slot, :, :tokens] = row_keys
                values[slot, :, :tokens] = row_values
        for slot in slots:
            self.lengths[slot] = tokens

    def stepped(self) -> None:
        """Every row has one token more."""
        self.lengths = [length + 1 if length else 0 for length in self.lengths]

    def free(self, slot: int) -> None:
        """The row of `slot` has ended. What it held is erased: where a model gave NaN, masking would not hide it."""
        for block in (*self.keys, *self.values):
            block[slot, :, : self.lengths[slot]] = 0
        self.lengths[slot] = 0

    def keep(self, slots: Sequence[int]) -> None:
        """Make the blocks smaller: only `slots` stay, renumbered in this order."""
        where = torch.tensor(list(slots), dtype=torch.long, device=self.keys[0].device)  # of no slot too
        self.lengths = [self.lengths[slot] for slot in slots]
        self.keys, self.values = ([block[where] for block in blocks] for blocks in (self.keys, self.values))

    def _grow(self, columns: int) -> None:
        more = -(-columns // _ROUND_TO) * _ROUND_TO - self.columns
        self.keys, self.values = (
            [torch.nn.functional.pad(block, (0, 0, 0, more)) for block in blocks] for blocks in (self.keys, self.values)
        )
