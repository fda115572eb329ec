"""Softmax attention over picture tokens, and from these to text: one function, with back-ends behind it.

`sdpa`, torch's own, runs everywhere on padded text with a mask. `varlen` (torch, CUDA, bf16 or fp16) and `xformers`
(CUDA) take text packed, all samples in one row, and read no padding. They differ by rounding only. Where there is no
text there is no padding either, and all of them use torch's own.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.models.packing import PackedText, PaddedText, attend_packed, split_heads

# cuDNN's backward with a mask gives NaN gradients on H100 and H200 since torch 2.11 (pytorch issue 196678), and
# flash takes no mask at all.
_MASKED_BACKENDS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int, text: PaddedText | PackedText | None = None
) -> Tensor:
    """Softmax attention of `query` [B, N, D] over `heads` heads to the same shape.

    key, value: [B, M, D]; or with packed text [R, D], the rows of all samples one after another.
    text: says which rows of key and value are whose, and which are padding; None: every row of a sample counts. Rows
        of padding must be finite: 0 times NaN is NaN.
    """
    if isinstance(text, PackedText):
        return attend_packed(query, key, value, heads, text)
    query, key, value = (split_heads(part, heads).transpose(1, 2) for part in (query, key, value))
    if text is None:
        attended = F.scaled_dot_product_attention(query, key, value)
    else:
        with masked_backends(query.device):
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=text.bias.to(query.dtype))
    return attended.transpose(1, 2).flatten(2)


def masked_backends(device: torch.device) -> AbstractContextManager[None]:
    """Within it, a masked call on `device` picks among the back-ends that are right with a mask."""
    return sdpa_kernel(_MASKED_BACKENDS) if device.type == "cuda" else nullcontext()
