"""Floating-point operations of a model, counted from its structure; and what share of a GPU's peak a step reaches.

A multiplication with its addition is two operations. Counted are matrix products, convolutions and the two products of
attention; elementwise work and norms are below 1 % of these and are left out, as in all published counts.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from training.models.config import DitConfig, PixArtConfig

_FREQUENCIES: Final = 256  # inputs of every embedder of scalars


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations for one sample."""

    forward: int
    backward: int  # nothing computed twice; twice the forward pass, less gradients of the inputs, which nobody needs
    blocks: int  # of the forward pass: in the transformer blocks
    attention: int  # of the forward pass: in the two products of attention

    @property
    def step(self) -> int:
        """Forward and backward: what MFU counts."""
        return self.forward + self.backward

    def computed(self, *, fused_attention: bool, checkpointed_blocks: bool) -> int:
        """Forward and backward with what is computed twice to save memory: what HFU counts.

        Fused attention makes the product of queries and keys anew in its backward pass; checkpointing does the whole
        forward pass of the blocks anew.
        """
        again = self.attention // 2 if fused_attention else 0
        return self.step + again + (self.blocks if checkpointed_blocks else 0)


@lru_cache(maxsize=1024)
def pixart_flops(config: PixArtConfig, height: int, width: int, text_tokens: int) -> Flops:
    """Of a PixArt for latents of `height` × `width` cells and text padded to `text_tokens`."""
    hidden, rows, columns = config.hidden, height // config.patch, width // config.patch
    tokens, per_block = rows * columns, config.modulation == "per-block"
    # Latents, sinusoids and text need no gradient, so layers on them have half a backward pass.
    leaves = _patches(config, tokens) + _linear(1, _FREQUENCIES, hidden)
    leaves += _linear(text_tokens, config.caption_channels, hidden)
    inner = _linear(1, hidden, hidden) + _linear(text_tokens, hidden, hidden)
    if config.micro_conditions:
        leaves += 3 * _linear(1, _FREQUENCIES, hidden // 3)
        inner += 3 * _linear(1, hidden // 3, hidden // 3)
    if per_block:
        leaves += _linear(1, config.caption_channels, hidden)
    else:
        inner += _linear(1, hidden, 6 * hidden)
    blocks = attention = 0
    for layer in range(config.depth):
        ratio = config.compression if layer in config.compressed_layers else 1
        keys = tokens // ratio**2
        products = _products(tokens, keys, hidden) + _products(tokens, text_tokens, hidden)
        compressing = 2 * _linear(keys, ratio**2, hidden) if ratio > 1 else 0
        modulation = _linear(1, hidden, 6 * hidden) if per_block else 0
        cross = 2 * _linear(tokens, hidden, hidden) + _linear(text_tokens, hidden, 2 * hidden)
        attention += products
        blocks += products + compressing + modulation + cross + _self_and_mlp(config, tokens)
    final = _final(config, tokens) + (_linear(1, hidden, 2 * hidden) if per_block else 0)
    return _flops(leaves, inner + blocks + final, blocks, attention)


@lru_cache(maxsize=1024)
def dit_flops(config: DitConfig, height: int, width: int) -> Flops:
    """Of a DiT for latents of `height` × `width` cells."""
    hidden, tokens = config.hidden, height // config.patch * (width // config.patch)
    leaves = _patches(config, tokens) + _linear(1, _FREQUENCIES, hidden)
    attention = config.depth * _products(tokens, tokens, hidden)
    blocks = attention + config.depth * (_linear(1, hidden, 6 * hidden) + _self_and_mlp(config, tokens))
    final = _final(config, tokens) + _linear(1, hidden, 2 * hidden)
    return _flops(leaves, _linear(1, hidden, hidden) + blocks + final, blocks, attention)


def mfu(flops: float, seconds: float, peak: float) -> float:
    """The share of `peak` operations a second that `flops` in `seconds` are: model FLOPs utilisation.

    flops: `Flops.step` summed over the samples of the step (those of one GPU, or of all with `peak` times their
    number). Chowdhery et al. 2022, appendix B: what is computed twice does not count.
    """
    return flops / seconds / peak


_PEAKS: Final[tuple[tuple[frozenset[str], float], ...]] = tuple(
    (frozenset(words.split()), teraflops * 1e12)
    for words, teraflops in (
        ("A100", 312.0),
        ("A800", 312.0),
        ("A30", 165.0),
        ("A40", 149.7),
        ("A10", 125.0),
        ("A10G", 70.0),
        ("L4", 121.0),
        ("L40", 181.0),
        ("L40S", 362.0),
        ("H100 PCIE", 756.0),
        ("H100 NVL", 835.0),
        ("H100", 989.4),
        ("H800", 989.4),
        ("H20", 148.0),
        ("H200 NVL", 835.5),
        ("H200", 989.4),
        ("GH200", 989.4),
        ("B200", 2250.0),
    )
)
"""Words of a GPU's name and its dense bf16 rate by the vendor's data sheet. The first whose words all occur counts."""


def peak_bf16(name: str) -> float | None:
    """Operations a second of dense bf16 products on the GPU that torch calls `name`; None if it is not in the table.

    A slice of a GPU (MIG) has no entry.
    """
    words = set(name.upper().replace("-", " ").split())
    if "MIG" in words:
        return None
    return next((rate for needed, rate in _PEAKS if needed <= words), None)


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def _products(queries: int, keys: int, hidden: int) -> int:
    """Queries by keys and weights by values, over all heads."""
    return 2 * _linear(queries, hidden, keys)


def _self_and_mlp(config: PixArtConfig | DitConfig, tokens: int) -> int:
    """The linear layers of self-attention and of the MLP."""
    hidden, inner = config.hidden, int(config.hidden * config.mlp_ratio)
    return _linear(tokens, hidden, 4 * hidden) + 2 * _linear(tokens, hidden, inner)


def _patches(config: PixArtConfig | DitConfig, tokens: int) -> int:
    return _linear(tokens, config.in_channels * config.patch**2, config.hidden)


def _final(config: PixArtConfig | DitConfig, tokens: int) -> int:
    return _linear(tokens, config.hidden, config.patch**2 * config.out_channels)


def _flops(leaves: int, inner: int, blocks: int, attention: int) -> Flops:
    """`leaves` multiply inputs that need no gradient, `inner` everything else."""
    return Flops(forward=leaves + inner, backward=leaves + 2 * inner, blocks=blocks, attention=attention)
