"""How the text of a batch lies in memory, padded or packed, and the attention kernels that read it packed."""

import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from schemas.errors import UserError
from training.models.config import ATTENTIONS
from training.models.text_lengths import padded_length


class PaddedText(NamedTuple):
    """Text as [B, L, D]."""

    bias: Tensor  # [B, 1, 1, L], added to the attention scores: 0, and minus infinity for padding


class PackedText(NamedTuple):
    """Text as [R, D]: the true rows of all B samples in turn, then rows of nobody."""

    kernel: str  # varlen or xformers
    query_starts: Tensor  # [B + 1] int32: 0, N, ..., B * N
    text_starts: Tensor  # [B + 1] int32: where each sample's rows begin, and where the last one's end
    unused: Tensor  # [R, 1] bool: the rows of nobody
    longest: int  # no text has more rows
    block_mask: Any = None  # xformers' own form of the starts


def check_attention(name: str, device: torch.device, precision: str) -> None:
    """Raise `UserError` unless the back-end `name` runs on `device` under `precision` (bf16 or fp32)."""
    if name not in ATTENTIONS:
        raise UserError(f"attention {name!r} is unknown. Use one of {', '.join(ATTENTIONS)}.")
    if name != "sdpa" and device.type != "cuda":
        raise UserError(f"--attention {name} runs on CUDA only, and this is the {device.type}. Use --attention sdpa.")
    if name == "varlen" and precision != "bf16":
        raise UserError(f"--attention varlen computes in bf16, not {precision}. Use --precision bf16, or sdpa.")
    if name == "xformers" and importlib.util.find_spec("xformers") is None:
        raise UserError(
            "--attention xformers, but xformers is not installed. Install latentmill[xformers], or use sdpa."
        )
    if name == "xformers":
        _check_xformers()


def _check_xformers() -> None:
    """Raise `UserError` unless what is used of xformers is there: its kernels may lie in a package of their own."""
    try:
        from xformers.ops import memory_efficient_attention  # noqa: F401 - whether it can be imported
        from xformers.ops.fmha.attn_bias import BlockDiagonalMask  # noqa: F401 - likewise
    except ImportError as error:
        raise UserError(
            f"--attention xformers, but xformers has no attention here ({error}). Install what it names, or use sdpa."
        ) from None


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


def pack_text(
    text: Tensor, lengths: Tensor, on_host: Sequence[int] | None, tokens: int, longest: int, kernel: str
) -> tuple[Tensor, PackedText]:
    """Padded text [B, L, C] with true `lengths` [B] as [R, C], for samples of `tokens` picture tokens.

    on_host: the lengths, where they are known without asking the device; None costs one wait for it.
    longest: no text has more rows; the same for all batches, or each value is a shape of its own to a compiler.

    For varlen R is B times one of `TEXT_LENGTHS`, the one that holds the mean length, so that few shapes occur. For
    xformers it is the number of true rows, for its mask leaves no row without an owner.
    """
    batch, padded, _ = text.shape
    known: list[int] = lengths.tolist() if on_host is None else list(on_host)
    rows = sum(known)
    if kernel == "varlen":
        rows = batch * padded_length(-(-rows // batch))
    device = text.device
    ends = lengths.cumsum(0)
    place = torch.arange(rows, device=device)
    owner = torch.searchsorted(ends, place, right=True).clamp_(max=batch - 1)
    within = (place - (ends - lengths)[owner]).clamp_(max=padded - 1)
    unused = (place >= ends[-1])[:, None]
    layout = PackedText(
        kernel=kernel,
        query_starts=torch.arange(0, (batch + 1) * tokens, tokens, dtype=torch.int32, device=device),
        text_starts=torch.cat([ends.new_zeros(1), ends]).to(torch.int32),
        unused=unused,
        longest=longest,
        block_mask=_block_mask(known, tokens, device) if kernel == "xformers" else None,
    )
    return text[owner, within].masked_fill(unused, 0), layout


def attend_packed(query: Tensor, key: Tensor, value: Tensor, heads: int, text: PackedText) -> Tensor:
    """Attention of `query` [B, N, D] to packed `key` and `value` [R, D] over `heads` heads, to the shape of `query`."""
    tokens = query.shape[1]
    # Kernels leave the gradients of rows that no query reads as they find them in memory, NaN included.
    key, value = key.masked_fill(text.unused, 0), value.masked_fill(text.unused, 0)
    queries, keys, values = (split_heads(part, heads) for part in (query.flatten(0, 1), key, value))
    if text.kernel == "xformers":
        return _xformers_attention(queries, keys, values, text.block_mask).reshape(query.shape)
    # Seven arguments and no more: what follows them differs between torch 2.10 and later ones.
    attended = varlen_attn(queries, keys, values, text.query_starts, text.text_starts, tokens, text.longest)
    assert isinstance(attended, Tensor)  # a tuple only if more is asked for
    return attended.reshape(query.shape)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., D] to [..., heads, D / heads], a view."""
    return x.view(*x.shape[:-1], heads, x.shape[-1] // heads)


def _block_mask(lengths: Sequence[int], tokens: int, device: torch.device) -> Any:
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    return BlockDiagonalMask.from_seqlens([tokens] * len(lengths), list(lengths), device=device)


def _xformers_attention(query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
    """All [rows, heads, D / heads]; `mask` is that of `_block_mask`."""
    from xformers.ops import memory_efficient_attention

    attended: Tensor = memory_efficient_attention(query[None], key[None], value[None], attn_bias=mask)[0]
    return attended
