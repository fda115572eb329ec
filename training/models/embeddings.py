"""Embeddings of position, time and size, and the projection of text, by the names of the official checkpoints."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FREQUENCIES = 256  # width of the sinusoids under every scalar embedder
_MAX_PERIOD = 10_000.0


def position_embedding(rows: int, columns: int, width: int, base: int, scale: float, device: torch.device) -> Tensor:
    """The fixed 2D sin-cos embedding of a grid of tokens, float32 [1, rows * columns, width].

    The first half of the channels encodes the column, the second the row; in each, sines come before cosines, of
    frequencies 10000^(-k / (width / 4)). A side of n tokens has the coordinates arange(n) / (n / base) / scale: both
    sides of any shape are stretched to the range of the training resolution (PixArt-α, appendix; DiT for n = base).
    """
    by_column = _axis_embedding(columns, width // 2, base, scale, device)[None].expand(rows, -1, -1)
    by_row = _axis_embedding(rows, width // 2, base, scale, device)[:, None].expand(-1, columns, -1)
    return torch.cat([by_column, by_row], dim=-1).reshape(1, rows * columns, width)


def _axis_embedding(tokens: int, width: int, base: int, scale: float, device: torch.device) -> Tensor:
    # Coordinates in float32 and angles in float64, as the released weights were trained with.
    coordinates = torch.arange(tokens, dtype=torch.float32, device=device) / (tokens / base) / scale
    exponents = torch.arange(width // 2, dtype=torch.float64, device=device) / (width / 2)
    angles = coordinates.double()[:, None] * _MAX_PERIOD**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class PositionEmbedding(nn.Module):
    """`position_embedding` for any shape, made once per shape and device. Holds no parameter and no buffer.

    It is no part of the state dict: the `pos_embed` of official checkpoints is a copy of what is computed here.
    """

    def __init__(self, width: int, base: int, scale: float) -> None:
        super().__init__()
        self._width, self._base, self._scale = width, base, scale
        self._made: dict[tuple[int, int, torch.device], Tensor] = {}

    def forward(self, rows: int, columns: int, device: torch.device) -> Tensor:
        """The embedding of a grid of `rows` × `columns` tokens on `device`, float32 [1, rows * columns, D]."""
        if torch.compiler.is_compiling():
            return position_embedding(rows, columns, self._width, self._base, self._scale, device)
        key = (rows, columns, device)
        if key not in self._made:
            with torch.inference_mode(False):  # or a table first made while sampling could not be trained with
                made = position_embedding(rows, columns, self._width, self._base, self._scale, device)
            if type(made) is not Tensor:  # a fake tensor of a tracing mode is of no use outside that mode
                return made
            self._made[key] = made
        return self._made[key]


def sinusoids(values: Tensor) -> Tensor:
    """Cosines, then sines of the scalars [B] at 128 frequencies 10000^(-k / 128): float32 [B, 256]."""
    half = _FREQUENCIES // 2
    # The order of float32 operations of the released code: at t = 999 another order moves angles by 6e-5.
    exponents = -math.log(_MAX_PERIOD) * torch.arange(half, dtype=torch.float32, device=values.device) / half
    angles = values.float()[:, None] * exponents.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScalarEmbedder(nn.Module):
    """A scalar a sample (timestep, pixels, aspect ratio) to a vector: sinusoids, then a two-layer MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, values: Tensor) -> Tensor:
        """[B] to [B, width]."""
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        embedded: Tensor = self.mlp(sinusoids(values).to(first.weight.dtype))
        return embedded


class Mlp(nn.Module):
    """Linear, GELU (tanh approximation), Linear."""

    def __init__(self, width: int, inner: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, out)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., out]."""
        hidden: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return hidden


class CaptionEmbedder(nn.Module):
    """T5 embeddings to the width of the model, token by token.

    With `null_tokens` it also keeps `y_embedding` [null_tokens, caption_channels], the released code's null caption:
    a buffer that is drawn once and never trained, and that `forward` does not use.
    """

    y_embedding: Tensor

    def __init__(self, caption_channels: int, hidden: int, null_tokens: int = 0) -> None:
        super().__init__()
        self.y_proj = Mlp(caption_channels, hidden, hidden)
        if null_tokens:
            drawn = torch.randn(null_tokens, caption_channels) / caption_channels**0.5
            self.register_buffer("y_embedding", drawn)

    def forward(self, text: Tensor) -> Tensor:
        """[B, L, caption_channels] to [B, L, D]."""
        projected: Tensor = self.y_proj(text)
        return projected


class LabelEmbedder(nn.Module):
    """A class number to a vector. Row `classes` is the null class of classifier-free guidance."""

    def __init__(self, classes: int, hidden: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, hidden)

    def forward(self, labels: Tensor) -> Tensor:
        """[B] int64 in [0, classes] to [B, D]."""
        embedded: Tensor = self.embedding_table(labels)
        return embedded


class PatchEmbedder(nn.Module):
    """Squares of `patch` × `patch` latent cells to tokens, row by row."""

    def __init__(self, in_channels: int, hidden: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden, kernel_size=patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, C, H, W] to [B, H / patch * W / patch, D]."""
        tokens: Tensor = self.proj(latents)
        # Contiguous, because every sum in the residual stream would inherit the transposed layout.
        return tokens.flatten(2).transpose(1, 2).contiguous()


def unpatchify(patches: Tensor, rows: int, columns: int, patch: int) -> Tensor:
    """Tokens [B, rows * columns, patch * patch * C] back to [B, C, rows * patch, columns * patch]."""
    channels = patches.shape[-1] // patch**2
    grid = patches.view(-1, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
    return grid.reshape(-1, channels, rows * patch, columns * patch)
