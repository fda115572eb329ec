"""The transformer block of PixArt-α and its two attention layers, by the names of the official checkpoints."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.models.attention import attention
from training.models.embeddings import Mlp
from training.models.packing import PackedText, PaddedText

_NORM_EPS = 1e-6


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without affine of x [B, N, D], then times (1 + scale) plus shift, both [B, 1, D]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=_NORM_EPS), 1 + scale)


def run_block(block: nn.Module, checkpointed: bool, *inputs: Tensor | PaddedText | PackedText | int) -> Tensor:
    """What `block` makes of `inputs`. If `checkpointed`, the backward pass computes its inside anew.

    A block draws no random numbers, so no generator's state is kept for that.
    """
    if checkpointed and torch.is_grad_enabled():
        again: Tensor = checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return again
    out: Tensor = block(*inputs)
    return out


class SelfAttention(nn.Module):
    """Every picture token attends to every picture token.

    With `qk_norm`, queries and keys pass a LayerNorm over the whole width before they are split into heads. With
    `compression` R > 1, each R × R square of tokens is one key and one value, by a strided depthwise convolution that
    starts as the mean, and a LayerNorm (PixArt-Σ, section 3.3); keys and values share both.
    """

    def __init__(self, hidden: int, heads: int, qk_norm: bool = False, compression: int = 1) -> None:
        super().__init__()
        self.heads, self.compression = heads, compression
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.proj = nn.Linear(hidden, hidden)
        self.q_norm = nn.LayerNorm(hidden) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(hidden) if qk_norm else nn.Identity()
        if compression > 1:
            self.sr = nn.Conv2d(hidden, hidden, compression, stride=compression, groups=hidden)
            self.norm = nn.LayerNorm(hidden)
            nn.init.constant_(self.sr.weight, compression**-2)
            nn.init.zeros_(self.sr.bias)  # type: ignore[arg-type]  # this convolution has one

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """[B, rows * columns, D] to the same shape. Raises `ValueError` for a grid that does not compress evenly."""
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        if self.compression > 1:
            key, value = self._compress(key, rows, columns), self._compress(value, rows, columns)
        out: Tensor = self.proj(attention(self.q_norm(query), self.k_norm(key), value, self.heads))
        return out

    def _compress(self, x: Tensor, rows: int, columns: int) -> Tensor:
        if rows % self.compression or columns % self.compression:
            raise ValueError(f"{rows} x {columns} tokens do not divide into squares of {self.compression} a side")
        grid = self.sr(x.transpose(1, 2).reshape(len(x), -1, rows, columns))
        compressed: Tensor = self.norm(grid.flatten(2).transpose(1, 2))
        return compressed


class CrossAttention(nn.Module):
    """Every picture token attends to the text tokens of its own sample."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(hidden, hidden)
        self.kv_linear = nn.Linear(hidden, 2 * hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, text: Tensor, layout: PaddedText | PackedText) -> Tensor:
        """x [B, N, D], text [B, L, D], or [R, D] if it is packed, to [B, N, D]."""
        key, value = self.kv_linear(text).chunk(2, dim=-1)
        out: Tensor = self.proj(attention(self.q_linear(x), key, value, self.heads, layout))
        return out


class PixArtBlock(nn.Module):
    """Self-attention and MLP under adaLN-single, with a plain cross-attention between (PixArt-α, section 2.3).

    The modulation is the sum of a table of this block's own and of a projection of time that all blocks share.
    Cross-attention has neither norm, modulation nor gate; its output layer starts at zero instead.
    """

    def __init__(self, hidden: int, heads: int, mlp_ratio: float, qk_norm: bool = False, compression: int = 1) -> None:
        super().__init__()
        self.attn = SelfAttention(hidden, heads, qk_norm, compression)
        self.cross_attn = CrossAttention(hidden, heads)
        self.mlp = Mlp(hidden, int(hidden * mlp_ratio), hidden)
        self.scale_shift_table = nn.Parameter(torch.empty(6, hidden))

    def forward(
        self, x: Tensor, text: Tensor, layout: PaddedText | PackedText, modulation: Tensor, rows: int, columns: int
    ) -> Tensor:
        """x [B, rows * columns, D], text [B, L, D] or packed [R, D], modulation [B, 6, D] to the shape of x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.scale_shift_table + modulation).chunk(6, dim=1)
        x = x + gate1 * self.attn(modulated_norm(x, shift1, scale1), rows, columns)
        x = x + self.cross_attn(x, text, layout)
        return x + gate2 * self.mlp(modulated_norm(x, shift2, scale2))


class FinalLayer(nn.Module):
    """Modulated norm and linear map of each token to the patch it stands for."""

    def __init__(self, hidden: int, patch: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, patch * patch * out_channels)
        self.scale_shift_table = nn.Parameter(torch.empty(2, hidden))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, N, D] and the embedded time [B, D] to [B, N, patch * patch * out_channels]."""
        shift, scale = (self.scale_shift_table + time[:, None]).chunk(2, dim=1)
        patches: Tensor = self.linear(modulated_norm(x, shift, scale))
        return patches
