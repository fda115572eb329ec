"""What the trainer sees of pictures: how much the crops of a latents dataset leave out, and samples of each bucket."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from curation.report.samples import SampleIds

CROP_COLUMNS: Final = (
    *("height_px", "width_px", "original_height", "original_width", "resized_height", "resized_width"),
    *("crop_top", "crop_left", "flipped"),
)

_OF_EACH_BUCKET: Final = 6


@dataclass(frozen=True, slots=True)
class CroppedSample:
    """A row of the latents index: where in its picture a latent was taken from. All sizes in pixels."""

    shard: str
    key: str
    bucket: str
    height_px: int
    width_px: int
    original_height: int
    original_width: int
    resized_height: int
    resized_width: int
    crop_top: int
    crop_left: int
    flipped: bool

    @property
    def left_out(self) -> float:
        """Share of the picture's area outside the crop."""
        return 1 - self.height_px * self.width_px / (self.resized_height * self.resized_width)


@dataclass(frozen=True, slots=True)
class BucketCrops:
    """One bucket: its samples, the mean share of their area that the crop leaves out, how many were enlarged to fill
    it, and the samples to show, lowest hash first."""

    bucket: str
    samples: int
    left_out: float
    enlarged: int
    shown: tuple[CroppedSample, ...]


@dataclass(slots=True)
class _Bucket:
    samples: int = 0
    left_out: float = 0.0
    enlarged: int = 0
    lowest: list[tuple[int, CroppedSample]] = field(default_factory=list)


@dataclass(slots=True)
class CropPass:
    """Gathers the buckets while index tables go by."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def add(self, ids: SampleIds, table: Any) -> None:
        """Count one `pyarrow.Table` with shard, key, bucket and CROP_COLUMNS."""
        size = {name: table[name].to_numpy().astype(np.float64) for name in CROP_COLUMNS[:6]}
        left_out = 1 - size["height_px"] * size["width_px"] / (size["resized_height"] * size["resized_width"])
        enlarged = size["resized_height"] > size["original_height"]
        names, places = np.unique(table["bucket"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
        for i, name in enumerate(names):
            rows = np.flatnonzero(places == i)
            bucket = self._buckets.setdefault(str(name), _Bucket())
            bucket.samples += len(rows)
            bucket.left_out += float(left_out[rows].sum())
            bucket.enlarged += int(enlarged[rows].sum())
            _keep_lowest(bucket, rows, ids, table)

    def buckets(self) -> tuple[BucketCrops, ...]:
        """What was gathered so far, the bucket with the most samples first."""
        ranked = sorted(self._buckets.items(), key=lambda item: (-item[1].samples, item[0]))
        return tuple(
            BucketCrops(name, b.samples, b.left_out / b.samples, b.enlarged, tuple(sample for _, sample in b.lowest))
            for name, b in ranked
        )


def _keep_lowest(bucket: _Bucket, rows: Any, ids: SampleIds, table: Any) -> None:
    if len(bucket.lowest) == _OF_EACH_BUCKET:
        rows = rows[ids[rows] < bucket.lowest[-1][0]]
    few = rows[np.argsort(ids[rows], kind="stable")[:_OF_EACH_BUCKET]]
    if len(few):
        told = table.select(["shard", "key", "bucket", *CROP_COLUMNS]).take(few).to_pylist()
        found = [(int(ids[i]), CroppedSample(**row)) for i, row in zip(few, told, strict=True)]
        bucket.lowest = sorted([*bucket.lowest, *found], key=lambda one: one[0])[:_OF_EACH_BUCKET]
