"""Keys and values of a batch whose rows come and go: a row that has ended leaves its slot to another one in place.

The cache is a block of columns. All rows write their next token into the same column, the `length`-th; a row's own
tokens are the columns just before it, however many it has, and what lies left of them is masked. So a new row is
written into a free slot right-aligned, and no other row moves. Where columns run out, the block is shifted left by what
no row needs any more.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

_ROUND_TO = 64


class SlotLayer(CacheLayerMixin):
    """The keys and values [B, H, C, D] of one layer. `fixed` gives attention the whole block, so that shapes stay."""

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor, fixed: bool) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = True
        self.column = column  # [1], shared by all layers: where the next token goes
        self.length = 0  # the same as a number; this and the next are changed only where shapes may follow them
        self.start = 0  # the first column that any row needs
        self.fixed = fixed

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the block is made when the first rows come."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one token [B, H, 1, D] of every row; the keys and values to attend to."""
        self.keys.index_copy_(2, self.column, key_states)
        self.values.index_copy_(2, self.column, value_states)
        if self.fixed:
            return self.keys, self.values
        needed = slice(self.start, self.length + 1)
        return self.keys[:, :, needed], self.values[:, :, needed]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The columns that a mask must cover, and the first of them."""
        return (self.keys.shape[2] if self.fixed else self.length - self.start + query_length), 0

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.length

    def get_max_length(self) -> int:
        """Columns that there are."""
        return int(self.keys.shape[2])


class SlotCache:
    """The block of all layers, its mask, and how long each row is. Slots are numbered 0 to B - 1.

    `bias` [B, 1, 1, C] is added to the attention scores: 0 where a row may look, else the least number. A free slot
    looks at the column of the step alone, so that its numbers stay finite (0 times NaN would be NaN).
    """

    def __init__(self, first: Cache, slots: int, room: int, fixed: bool) -> None:
        """A block for rows like those of `first`, a cache after prefill, with `room` columns beyond them."""
        like = first.layers[0].keys
        columns = -(-(like.shape[2] + room) // _ROUND_TO) * _ROUND_TO
        self._device, self._dtype, self._fixed = like.device, like.dtype, fixed
        self._column = torch.zeros(1, dtype=torch.long, device=self._device)
        self.lengths = [0] * slots
        self.bias = self._blank_bias(slots, columns)
        layers = []
        for layer in first.layers:
            keys, values = (
                torch.zeros(slots, t.shape[1], columns, t.shape[3], dtype=t.dtype, device=t.device)
                for t in (layer.keys, layer.values)
            )
            layers.append(SlotLayer(keys, values, self._column, fixed))
        self.layers: list[SlotLayer] = layers
        self.cache = Cache(layers=list(layers))
        self._length = 0

    @property
    def columns(self) -> int:
        """Columns that there are."""
        return int(self.bias.shape[3])

    def admit(self, slots: Sequence[int], fresh: Cache) -> None:
        """Put the rows of `fresh`, a cache after prefill of prompts of one length, into free `slots`."""
        tokens = int(fresh.layers[0].keys.shape[2])
        if not any(self.lengths):
            if tokens >= self.columns:
                self._grow(tokens + 1 - self.columns)
            self._move_to(tokens)
        elif tokens > self._length:
            self._shift(tokens - self._length)
        where = torch.tensor(list(slots), device=self._device)
        span = slice(self._length - tokens, self._length)
        for mine, theirs in zip(self.layers, fresh.layers, strict=True):
            mine.keys[where, :, span] = theirs.keys
            mine.values[where, :, span] = theirs.values
        self.bias[where] = torch.finfo(self._dtype).min
        self.bias[where, :, :, span] = 0
        for slot in slots:
            self.lengths[slot] = tokens

    def step(self) -> tuple[Tensor, Tensor]:
        """Make room for one token of every row. The mask of the step [B, 1, 1, L], and positions [B, 1].

        L is as many columns as the longest row has, or all of them where shapes are fixed.
        """
        if self._length == self.columns:
            self._shift(max(self.lengths) - self._length)
        self.bias[:, :, :, self._length] = 0
        start = 0 if self._fixed else self._length - max(self.lengths)
        for layer in self.layers:
            layer.start = start
        mask = self.bias if self._fixed else self.bias[:, :, :, start : self._length + 1]
        return mask, torch.tensor(self.lengths, device=self._device).unsqueeze(1)

    def stepped(self) -> None:
        """Every row has one token more."""
        self.lengths = [length + 1 if length else 0 for length in self.lengths]
        self._move_to(self._length + 1)

    def free(self, slot: int) -> None:
        """The row of `slot` has ended."""
        self.lengths[slot] = 0
        self.bias[slot] = torch.finfo(self._dtype).min

    def keep(self, slots: Sequence[int]) -> None:
        """Make the block smaller: only `slots` stay, renumbered in this order."""
        where = torch.tensor(list(slots), device=self._device)
        self.bias = self.bias[where]
        self.lengths = [self.lengths[slot] for slot in slots]
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[where], layer.values[where]

    def _shift(self, by: int) -> None:
        """Move everything by columns to the right; to the left if `by` is negative. Takes more columns if it must."""
        if by == 0 or self._length + by > self.columns:
            self._grow(max(self._length + by - self.columns, 1))
            if by == 0:
                return
        kept = max(self.lengths)
        source, target = slice(self._length - kept, self._length), slice(self._length - kept + by, self._length + by)
        for layer in self.layers:
            layer.keys[:, :, target] = layer.keys[:, :, source].clone()
            layer.values[:, :, target] = layer.values[:, :, source].clone()
        moved = self._blank_bias(len(self.lengths), self.columns)
        moved[:, :, :, target] = self.bias[:, :, :, source]
        self.bias = moved
        self._move_to(self._length + by)

    def _grow(self, columns: int) -> None:
        more = -(-columns // _ROUND_TO) * _ROUND_TO
        self.bias = torch.cat([self.bias, self._blank_bias(len(self.lengths), more)], dim=3)
        for layer in self.layers:
            layer.keys, layer.values = (
                torch.nn.functional.pad(part, (0, 0, 0, more)) for part in (layer.keys, layer.values)
            )

    def _move_to(self, length: int) -> None:
        self._length = length
        self._column.fill_(length)
        if not self._fixed:
            for layer in self.layers:
                layer.length = length

    def _blank_bias(self, slots: int, columns: int) -> Tensor:
        return torch.full((slots, 1, 1, columns), torch.finfo(self._dtype).min, dtype=self._dtype, device=self._device)
