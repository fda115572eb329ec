"""A random order of range(n) that is never written down: the place of any element is computed on its own.

An unbalanced Feistel network over pairs of digits (x mod a, x div a) with a * b just above n, whose rounds add modulo a
and b in turn (after Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002); an image that falls
outside n is put through again ("cycle walking"), which happens to about one in sqrt(n).
"""

import math
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

_ROUNDS: Final = 8
_ROUNDS_OF_FEW: Final = 16  # so few elements that eight rounds would favour some orders over others
_FEW: Final = 1024
_MASK: Final = np.uint64(0xFFFFFFFF)
_MIX: Final = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))
_HALF: Final = np.uint64(32)
_PIECE: Final = 1 << 15  # elements at a time, so that what lies between two operations stays in the cache


class Bijection:
    """The order of range(count) that follows from `name` alone: element i of it is `self(i)`. count up to 2**32."""

    def __init__(self, name: str, count: int) -> None:
        self.count = count
        side = max(1, math.isqrt(max(0, count - 1)) + 1)
        self._sides = np.uint64(side), np.uint64(-(-count // side))
        content = name.encode()
        rounds = _ROUNDS_OF_FEW if count < _FEW else _ROUNDS
        self._keys = [np.uint64(xxhash.xxh3_64_intdigest(content, seed=number)) for number in range(rounds)]

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The elements at `places` [N], each in [0, count)."""
        out = np.empty(len(places), np.int64)
        for start in range(0, len(places), _PIECE):
            piece = self._permute(places[start : start + _PIECE].astype(np.uint64))
            while len(outside := np.flatnonzero(piece >= self.count)):
                piece[outside] = self._permute(piece[outside])
            out[start : start + _PIECE] = piece
        return out

    def _permute(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        first, second = self._sides
        left, right = x % first, x // first
        for even, odd in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = _turn(left, right, even, first)
            right = _turn(right, left, odd, second)
        return right * first + left


def _turn(digit: NDArray[np.uint64], other: NDArray[np.uint64], key: np.uint64, base: np.uint64) -> NDArray[np.uint64]:
    """`digit` plus a hash of `other`, modulo `base`."""
    mixed = (other + key) * _MIX[0]
    mixed ^= mixed >> _HALF
    mixed *= _MIX[1]
    mixed >>= _HALF
    mixed *= base
    mixed >>= _HALF
    mixed += digit
    np.subtract(mixed, base, out=mixed, where=mixed >= base)
    return mixed
