"""adaLN with a projection in every block: the blocks of DiT, and of the baseline in PixArt-α's ablation."""

import torch.nn.functional as F
from torch import Tensor, nn

from training.models.block import CrossAttention, SelfAttention, modulated_norm
from training.models.embeddings import Mlp
from training.models.packing import PackedText, PaddedText


class AdaLn(nn.Sequential):
    """A condition [B, D] to `parts` vectors of modulation, by SiLU and a linear layer."""

    def __init__(self, hidden: int, parts: int) -> None:
        super().__init__(nn.SiLU(), nn.Linear(hidden, parts * hidden))
        self._parts = parts

    @property
    def linear(self) -> nn.Linear:
        """The layer with the weights; number 1 by its official name."""
        layer = self[1]
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, condition: Tensor) -> Tensor:
        """[B, D] to [B, parts, D]."""
        return self.linear(F.silu(condition)).view(len(condition), self._parts, -1)


class DitBlock(nn.Module):
    """Self-attention and MLP, each with shift, scale and gate (adaLN-zero; Peebles & Xie 2022, section 3.2)."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = SelfAttention(hidden, heads)
        self.mlp = Mlp(hidden, int(hidden * mlp_ratio), hidden)
        self.adaLN_modulation = AdaLn(hidden, 6)

    def forward(self, x: Tensor, condition: Tensor, rows: int, columns: int) -> Tensor:
        """x [B, rows * columns, D] and condition [B, D] to the shape of x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        x = x + gate1 * self.attn(modulated_norm(x, shift1, scale1), rows, columns)
        return x + gate2 * self.mlp(modulated_norm(x, shift2, scale2))


class AdaLnPixArtBlock(nn.Module):
    """A `PixArtBlock` whose modulation is a projection of its own instead of a table on a shared one."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: float, qk_norm: bool, compression: int) -> None:
        super().__init__()
        self.attn = SelfAttention(hidden, heads, qk_norm, compression)
        self.cross_attn = CrossAttention(hidden, heads)
        self.mlp = Mlp(hidden, int(hidden * mlp_ratio), hidden)
        self.adaLN_modulation = AdaLn(hidden, 6)

    def forward(
        self, x: Tensor, text: Tensor, layout: PaddedText | PackedText, condition: Tensor, rows: int, columns: int
    ) -> Tensor:
        """x [B, rows * columns, D], text [B, L, D] or packed [R, D], condition [B, D] to the shape of x."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        x = x + gate1 * self.attn(modulated_norm(x, shift1, scale1), rows, columns)
        x = x + self.cross_attn(x, text, layout)
        return x + gate2 * self.mlp(modulated_norm(x, shift2, scale2))


class AdaLnFinalLayer(nn.Module):
    """DiT's last layer: modulated norm and linear map of each token to the patch it stands for."""

    def __init__(self, hidden: int, patch: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, patch * patch * out_channels)
        self.adaLN_modulation = AdaLn(hidden, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x [B, N, D] and condition [B, D] to [B, N, patch * patch * out_channels]."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        patches: Tensor = self.linear(modulated_norm(x, shift, scale))
        return patches
