"""The lengths that text is padded to: few, so that what is compiled for them is compiled once."""

from typing import Final

TEXT_LENGTHS: Final = (16, 32, 48, 72, 96, 120, 144, 176, 208, 256, 304)
"""From short captions to the 120 tokens of PixArt-α and the 300 of PixArt-Σ. Multiples of 8, as attention kernels want
a mask's rows aligned; none is 64 more than a multiple of 128, where cuDNN's backward pass with a mask has given NaN
(pytorch issue 196678)."""


def padded_length(longest: int) -> int:
    """The smallest of `TEXT_LENGTHS` that holds `longest` tokens; beyond them, the next multiple of 128."""
    return next((length for length in TEXT_LENGTHS if length >= longest), -(-longest // 128) * 128)
