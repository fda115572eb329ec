"""All randomness of training, each draw keyed by what it is for; never by rank or by a generator's state.

A sample's draws depend on (seed, visit, sample id, purpose) alone. `visit` counts how often the plan has used the
sample before, so no two uses share a draw, and any use can be repeated on its own, on any rank of any world size.
"""

from enum import IntEnum

import numpy as np
import xxhash
from numpy.typing import NDArray


class Purpose(IntEnum):
    """What a draw is for. The numbers are part of the streams' definition: never change or reuse one."""

    TIMESTEP = 1
    NOISE = 2
    POSTERIOR = 3
    CAPTION_DROP = 4


def sample_id(shard: str, key: str) -> int:
    """The stable 64-bit name of a sample: xxh64 (seed 0) of the shard's UTF-8 bytes, a zero byte, and the key's.

    Two samples of one dataset may share an id (for 14M samples with a chance of 5e-6); they then share random draws,
    which does no harm.
    """
    return xxhash.xxh64_intdigest(shard.encode() + b"\0" + key.encode())


def generator(seed: int, visit: int, sample: int, purpose: Purpose) -> np.random.Generator:
    """A fresh generator for one use of one sample: Philox-4x64 with key (sample, seed), counter (0, 0, visit, purpose).

    The two low words of the counter are the room for draws: 2^130 numbers before two streams could meet.
    """
    key = np.array([sample, seed], dtype=np.uint64)
    counter = np.array([0, 0, visit, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def permutation(name: str, count: int) -> NDArray[np.int64]:
    """A random order of range(count) that depends on `name` alone: int64 [count].

    The stable argsort of Philox-4x64's raw words, keyed by xxh3_128 of the name. Raw words are defined by the cipher,
    so unlike `Generator.permutation` the order can never change with a release of numpy.
    """
    digest = xxhash.xxh3_128_intdigest(name.encode())
    key = np.array([digest & 0xFFFFFFFFFFFFFFFF, digest >> 64], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(count)
    return np.argsort(words, kind="stable")
