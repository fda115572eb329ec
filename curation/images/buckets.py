"""The 40 aspect buckets of PixArt-α, at four resolutions, from one table."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from schemas.errors import UserError

RESOLUTIONS: Final = (256, 512, 1024, 2048)
"""Side in pixels of the square bucket of each set. PixArt-Σ's 2880 has a table of its own and is not one of them."""

# (height, width) in cells of resolution / 16 px, from wide to tall: ASPECT_RATIO_1024 of the released code divided by
# 64. The other resolutions are that table scaled. (11, 21) has no upright twin there, so it has none here.
_CELLS: Final = (
    (8, 32),
    (8, 31),
    (8, 30),
    (8, 29),
    (9, 28),
    (9, 27),
    (9, 26),
    (10, 25),
    (10, 24),
    (11, 23),
    (11, 22),
    (11, 21),
    (12, 21),
    (12, 20),
    (13, 19),
    (13, 18),
    (14, 18),
    (14, 17),
    (15, 17),
    (15, 16),
    (16, 16),
    (16, 15),
    (17, 15),
    (17, 14),
    (18, 14),
    (18, 13),
    (19, 13),
    (20, 12),
    (21, 12),
    (22, 11),
    (23, 11),
    (24, 10),
    (25, 10),
    (26, 9),
    (27, 9),
    (28, 9),
    (29, 8),
    (30, 8),
    (31, 8),
    (32, 8),
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One picture size. `key` is height / width to two decimals, the number by which pictures are assigned."""

    key: float
    height_px: int
    width_px: int

    @property
    def name(self) -> str:
        """HEIGHTxWIDTH in pixels, such as 1024x960."""
        return f"{self.height_px}x{self.width_px}"


def _buckets(resolution: int) -> tuple[Bucket, ...]:
    cell = resolution // 16
    return tuple(Bucket(round(h / w, 2), h * cell, w * cell) for h, w in _CELLS)


BUCKETS: Final = MappingProxyType({resolution: _buckets(resolution) for resolution in RESOLUTIONS})
"""The 40 buckets of each resolution in order of key: 0.25 (wide) to 4.0 (tall)."""


def buckets_at(resolution: int) -> tuple[Bucket, ...]:
    """The 40 buckets at `resolution`. Raises `UserError` for a resolution that has none."""
    try:
        return BUCKETS[resolution]
    except KeyError:
        known = ", ".join(map(str, RESOLUTIONS))
        raise UserError(f"resolution {resolution}: no aspect buckets there; choose from {known}.") from None


def nearest_bucket(height: int, width: int, resolution: int) -> Bucket:
    """The bucket whose key is nearest to height / width; of two as near, the one with the smaller key.

    Compared in whole numbers, so that a tie is a tie on every machine. Raises `UserError` as `buckets_at`, and
    ValueError for a side below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {height}x{width} px has no aspect")
    return min(buckets_at(resolution), key=lambda bucket: abs(round(bucket.key * 100) * width - 100 * height))


def square(resolution: int) -> Bucket:
    """The square bucket at `resolution`. Raises `UserError` as `buckets_at`."""
    return next(bucket for bucket in buckets_at(resolution) if bucket.key == 1.0)
