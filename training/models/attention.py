"""Attention through torch's `scaled_dot_product_attention`: over picture tokens, and from these to text tokens."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# cuDNN's backward with a mask gives NaN gradients on H100 and H200 since torch 2.11 (pytorch issue 196678), and
# flash takes no mask at all.
_MASKED_BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def self_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of every token to every token. All [B, heads, N, D / heads], and so is the result."""
    return F.scaled_dot_product_attention(query, key, value)


def cross_attention(query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor) -> Tensor:
    """Softmax attention of `query` [B, heads, N, d] to the unpadded rows of `key` and `value` [B, heads, L, d].

    `key_bias` [B, 1, 1, L] is that of `padding_bias`. Padded rows must be finite: 0 times NaN is NaN.
    Returns [B, heads, N, d].
    """
    with masked_backends(query.device):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=key_bias.to(query.dtype))


def key_mask(lengths: Tensor, length: int) -> Tensor:
    """Boolean [B, L] of the rows that are no padding, for true `lengths` [B] and padded `length` L."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the attention scores, [B, 1, 1, L]: 0 where `mask` [B, L] holds, minus infinity elsewhere.

    Additive rather than boolean because the CUDA back-end turns a boolean mask into this one at every call, whereas
    here it is made once a forward for all blocks.
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, float("-inf"))
    return bias[:, None, None, :]


def masked_backends(device: torch.device) -> AbstractContextManager[None]:
    """Within it, a masked call on `device` picks among the back-ends that are right with a mask."""
    return sdpa_kernel(_MASKED_BACKENDS) if device.type == "cuda" else nullcontext()
