"""The sizes and the options of the models: PixArt, and the class-conditional DiT that it is made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from schemas.errors import UserError

MODULATIONS: Final = ("single", "per-block")
NULL_CAPTIONS: Final = ("empty-string", "buffer")
ATTENTIONS: Final = ("sdpa", "varlen", "xformers")
"""Back-ends of attention to text, see training.models.attention. No part of what a model is."""


def _require_positive(model: str, sizes: Mapping[str, float]) -> None:
    odd = [f"{name} is {size}" for name, size in sizes.items() if not size > 0]
    if odd:
        raise UserError(f"{model}: {', '.join(odd)}, and must be above 0. Change it.")


@dataclass(frozen=True, slots=True)
class PixArtConfig:
    """What a PixArt is built from. Travels inside each weights file. Raises `UserError` for sizes that cannot be."""

    depth: int = 28  # transformer blocks
    hidden: int = 1152  # width D of the residual stream
    heads: int = 16
    patch: int = 2  # latent cells a side of a token
    mlp_ratio: float = 4.0
    in_channels: int = 4  # latent channels C
    caption_channels: int = 4096  # width of the T5 embeddings
    text_tokens: int = 120  # longest caption in T5 tokens; a promise of the data side, the model takes any length
    learn_sigma: bool = True  # predict the variance beside epsilon: 2C output channels
    micro_conditions: bool = False  # condition on original size and aspect ratio (the released 1024 px model)
    position_base: int = 16  # tokens a side at the training resolution: 16, 32, 64
    position_scale: float = 1.0  # divides the coordinates: 1 at 256 and 512 px, 2 at 1024 px
    modulation: str = "single"  # adaLN-single; per-block: the baseline of the paper's ablation, see `PixArt`
    null_caption: str = "empty-string"  # buffer: the released code's random constant is part of the state, see `PixArt`
    qk_norm: bool = False  # LayerNorm over the whole width of queries and keys in self-attention
    compressed_layers: tuple[int, ...] = ()  # blocks with compressed keys and values; PixArt-Σ: 14 to 27
    compression: int = 2  # tokens a side that become one key and one value there

    def __post_init__(self) -> None:
        if self.hidden % self.heads:
            raise UserError(f"PixArt: width {self.hidden} does not divide into {self.heads} heads. Change either.")
        if self.hidden % 4:
            raise UserError(
                f"PixArt: width {self.hidden} is no multiple of 4, as the position embedding needs. Change it."
            )
        if self.micro_conditions and self.hidden % 3:
            raise UserError(
                f"PixArt: micro-conditions need a width that is a multiple of 3, not {self.hidden}. "
                f"Change it or switch them off."
            )
        names = ("depth", "hidden", "patch", "in_channels", "caption_channels", "position_base", "mlp_ratio")
        _require_positive("PixArt", {name: getattr(self, name) for name in (*names, "position_scale")})
        if self.modulation not in MODULATIONS:
            raise UserError(f"PixArt: modulation {self.modulation!r} is unknown. Use one of {', '.join(MODULATIONS)}.")
        if self.null_caption not in NULL_CAPTIONS:
            raise UserError(
                f"PixArt: null caption {self.null_caption!r} is unknown. Use one of {', '.join(NULL_CAPTIONS)}."
            )
        layers = self.compressed_layers
        if sorted(set(layers)) != list(layers) or any(not 0 <= layer < self.depth for layer in layers):
            raise UserError(
                f"PixArt: compressed layers {list(layers)} are not ascending numbers of the blocks 0 to "
                f"{self.depth - 1}. Name such blocks."
            )
        if self.compression < 2:
            raise UserError(f"PixArt: compression by {self.compression} is none. Use 2 or more.")

    @property
    def out_channels(self) -> int:
        """Channels of the output: C of epsilon, and C more of variance where it is learned."""
        return 2 * self.in_channels if self.learn_sigma else self.in_channels


PIXART_SIZES: Final[dict[str, PixArtConfig]] = {
    "tiny/2": PixArtConfig(depth=4, hidden=128, heads=4),  # for tests and demonstrations; not in the literature
    "S/2": PixArtConfig(depth=12, hidden=384, heads=6),
    "B/2": PixArtConfig(depth=12, hidden=768, heads=12),
    "L/2": PixArtConfig(depth=24, hidden=1024, heads=16),
    "XL/2": PixArtConfig(depth=28, hidden=1152, heads=16),
}
"""Depth, width and heads by the names of DiT (Peebles & Xie 2022, Table 1); XL/2 is the paper's PixArt-α."""


@dataclass(frozen=True, slots=True)
class DitConfig:
    """What a class-conditional DiT is built from. Raises `UserError` for sizes that cannot be."""

    depth: int = 28
    hidden: int = 1152
    heads: int = 16
    patch: int = 2
    mlp_ratio: float = 4.0
    in_channels: int = 4
    classes: int = 1000  # the null class is one more, numbered `classes`
    learn_sigma: bool = True
    position_base: int = 16  # tokens a side at the training resolution: 16 at 256 px, 32 at 512 px

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.hidden % 4:
            raise UserError(
                f"DiT: width {self.hidden} must be a multiple of 4 and divide into {self.heads} heads. Change either."
            )
        names = ("depth", "hidden", "patch", "in_channels", "classes", "position_base", "mlp_ratio")
        _require_positive("DiT", {name: getattr(self, name) for name in names})

    @property
    def out_channels(self) -> int:
        """Channels of the output: C of epsilon, and C more of variance where it is learned."""
        return 2 * self.in_channels if self.learn_sigma else self.in_channels


DIT_SIZES: Final[dict[str, DitConfig]] = {
    name: DitConfig(depth=size.depth, hidden=size.hidden, heads=size.heads, patch=size.patch)
    for name, size in PIXART_SIZES.items()
}
"""The same shapes for stage 1, so that each size of DiT can become the PixArt of that name."""
