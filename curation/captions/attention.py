"""Attention of one token a row over the columns that the row has, for the captioning step.

Torch's own attention over rows of different lengths goes over the columns of the longest one and masks. On a CPU that
is half of a step, most of it spent on calls for small products; here each key and value is read once, and none that the
row does not have. So a row's numbers do not depend on its neighbours' lengths either.
"""

import math
from typing import Any, Final, TypeAlias

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]

# Sums may be taken in any order, without which nothing is computed side by side; NaN and infinity keep their meaning.
_ARITHMETIC: Final = {"reassoc", "contract", "nsz", "arcp", "afn"}


def is_quick(block: Tensor) -> bool:
    """Whether `own_columns` is for this cache: float32 on a CPU, with one thread a process as a worker has.

    With two threads torch's attention was found as fast, and more were not tried (docs/LOG.md).
    """
    return block.device.type == "cpu" and block.dtype == torch.float32 and torch.get_num_threads() == 1


def own_columns(query: Tensor, keys: Tensor, values: Tensor, last: Tensor, scale: float) -> Tensor:
    """softmax(scale · q·k) · v over the columns 0 to `last` [B] of each row, [B, H, D].

    `query` is [B, H, D]; `keys` and `values` are [B, K, C, D], each head of them for H / K heads of the query.
    """
    looked = torch.empty_like(query)
    _compiled(query.numpy(), keys.numpy(), values.numpy(), last.numpy(), np.float32(scale), looked.numpy())
    return looked


def masked(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The same by torch, on any device and in any type: over all columns, with `bias` [B, 1, 1, C] added to scores."""
    heads = keys.shape[1]
    looked = scaled_dot_product_attention(
        query.view(len(query), heads, -1, query.shape[-1]),  # heads that share keys stand as queries of one head
        keys,
        values,
        attn_mask=bias,
        scale=scale,
    )
    return looked.reshape(query.shape)


def _own_columns(
    query: Floats, keys: Floats, values: Floats, last: Integers, scale: np.float32, looked: Floats
) -> None:
    rows, heads, width = query.shape
    shared = heads // keys.shape[1]
    weights = np.empty(keys.shape[2], np.float32)
    for row in range(rows):
        count = last[row] + 1
        for head in range(heads):
            q, k, v = query[row, head], keys[row, head // shared], values[row, head // shared]
            highest = _scores(q, k, scale, count, weights)
            total = np.float32(0)
            for column in range(count):
                weights[column] = math.exp(weights[column] - highest)
                total += weights[column]
            out = looked[row, head]
            _weighted_sum(weights, v, count, out)
            for d in range(width):
                out[d] /= total


def _scores_of(q: Floats, k: Floats, scale: np.float32, count: int, scores: Floats) -> np.float32:
    highest = np.float32(-np.inf)
    for column in range(count):
        product = np.float32(0)
        for d in range(len(q)):
            product += q[d] * k[column, d]
        scores[column] = product * scale
        highest = max(highest, scores[column])
    return highest


def _weighted_sum_of(weights: Floats, v: Floats, count: int, out: Floats) -> None:
    fours = count - count % 4
    for d in range(len(out)):
        out[d] = 0
    for c in range(0, fours, 4):  # four at a time, so that `out` is read and written a fourth as often
        for d in range(len(out)):
            out[d] += (
                weights[c] * v[c, d]
                + weights[c + 1] * v[c + 1, d]
                + weights[c + 2] * v[c + 2, d]
                + weights[c + 3] * v[c + 3, d]
            )
    for c in range(fours, count):
        for d in range(len(out)):
            out[d] += weights[c] * v[c, d]


_compile: Final[Any] = numba.njit(fastmath=_ARITHMETIC, nogil=True, error_model="numpy")
_scores: Final[Any] = _compile(_scores_of)
_weighted_sum: Final[Any] = _compile(_weighted_sum_of)
_compiled: Final[Any] = _compile(_own_columns)
