"""All randomness of training, each draw keyed by what it is for; never by rank or by a generator's state.

A draw is a pure function of (seed, visit, sample id, purpose): the cipher Philox4x32-10 (Salmon et al., Parallel random
numbers: as easy as 1, 2, 3, SC 2011) with the key `seed` and the counter (block, visit and purpose, sample id). All of
them fit into it whole (visits below 2**24), so no two uses of a sample and no two purposes share a number. `visit`
counts how often the plan has used the sample before: it grows with the epochs and tells apart the uses within one.

The rounds are written in operators that numpy's and torch's int64 share, so the words are the same bits on the host and
on any device; normal deviates made from them agree within the rounding of log, sqrt, sin and cos.
"""

import math
from enum import IntEnum
from typing import Any, Final, TypeVar

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

_MASK: Final = 0xFFFFFFFF
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
_ROUNDS: Final = 10

W = TypeVar("W", NDArray[np.int64], Tensor)


class Purpose(IntEnum):
    """What a draw is for. The numbers are part of the streams' definition: never change or reuse one."""

    TIMESTEP = 1
    NOISE = 2
    POSTERIOR = 3
    CAPTION_DROP = 4
    CAPTION_VARIANT = 5
    FLIP = 6
    HELD_OUT = 7


def sample_id(shard: str, key: str) -> int:
    """The stable 64-bit name of a sample: xxh64 (seed 0) of the shard's UTF-8 bytes, a zero byte, and the key's.

    Two samples of one dataset may share an id (for 14M samples with a chance of 5e-6); they then share random draws,
    which does no harm.
    """
    return xxhash.xxh64_intdigest(shard.encode() + b"\0" + key.encode())


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10 of four int64 arrays or tensors with values in [0, 2**32), which broadcast; the same of words."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product takes all 64 bits and wraps into the sign; shifted and masked, its halves are right all the same.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = ((right >> 32) & _MASK) ^ b ^ k0, right & _MASK, ((left >> 32) & _MASK) ^ d ^ k1, left & _MASK
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return a, b, c, d


def uniform(seed: int, visits: NDArray[np.int64], samples: NDArray[np.uint64], purpose: Purpose) -> NDArray[np.float64]:
    """One number in [0, 1) for each use: float64 [N] with 53 random bits."""
    ids = samples.view(np.int64)
    high, low, _, _ = philox(_counter(np.zeros_like(ids), visits, ids, purpose), _key(seed))
    return np.asarray(((high >> 5) * (1 << 26) + (low >> 6)) * 2.0**-53)


def fractions(seed: int, visits: Tensor, samples: Tensor, purpose: Purpose) -> Tensor:
    """One number in [0, 1) for each use: float64 [B] with 32 random bits. `samples` are ids as int64 bits [B].

    Times a whole number up to 2**21 and rounded down, no product is rounded before.
    """
    return _word(seed, visits, samples, purpose).double() * 2.0**-32


def normal(seed: int, visits: Tensor, samples: Tensor, purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
    """Standard normal deviates for each use: float32 [B, *shape] on the device of `samples`, by Box and Muller.

    Four of them a block of the cipher, two from each pair of words. `samples` are ids as int64 bits [B].
    """
    count = math.prod(shape)
    block = torch.arange(-(-count // 4), device=samples.device)[None]
    words = philox(_counter(block, visits[:, None], samples[:, None], purpose), _key(seed))
    radii = [torch.sqrt(-2 * torch.log((word.float() + 0.5) * 2.0**-32)) for word in words[::2]]
    angles = [word.float() * (2 * math.pi * 2.0**-32) for word in words[1::2]]
    pairs = [
        radius * turn(angle) for radius, angle in zip(radii, angles, strict=True) for turn in (torch.cos, torch.sin)
    ]
    return torch.stack(pairs, dim=-1).flatten(1)[:, :count].reshape(-1, *shape)


def _word(seed: int, visits: Tensor, samples: Tensor, purpose: Purpose) -> Tensor:
    """The first word of each use: int64 [B] in [0, 2**32)."""
    return philox(_counter(torch.zeros_like(samples), visits, samples, purpose), _key(seed))[0]


def _counter(block: W, visits: W, ids: W, purpose: Purpose) -> tuple[W, W, W, W]:
    return block, (visits << 8) | int(purpose), ids & _MASK, (ids >> 32) & _MASK


def _key(seed: int) -> tuple[int, int]:
    return seed & _MASK, seed >> 32
