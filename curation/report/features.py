"""What the indexes of the latents and text datasets tell: bytes, tokens, buckets, and which samples there are."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from curation.report.crops import CROP_COLUMNS, BucketCrops, CropPass
from curation.report.histogram import Distribution, Histogram
from curation.report.samples import SampleIds, distinct, sample_ids
from schemas.dataset import INDEX_DIR
from schemas.errors import DatasetError
from schemas.reading import Dataset
from schemas.tables import LATENTS_INDEX, TEXT_INDEX

RELEASED_TEXT_BYTES: Final = 120 * 4096 * 4 + 120 * 8
"""PixArt-α's released text features: float32 [120, 4096], padded, and an int64 mask of 120."""

RELEASED_LATENT_BYTES: Final = 2 * 4 * 32 * 32 * 4
"""PixArt-α's released latents at 256 px: float32 mean and standard deviation, each [4, 32, 32]."""


@dataclass(frozen=True, slots=True)
class Volume:
    """How much a feature weighs. `content_bytes` are the members' own, `disk_bytes` the tars with their headers."""

    samples: int
    content_bytes: int
    disk_bytes: int

    @property
    def per_sample(self) -> float:
        """Mean content bytes of a sample; 0 without samples."""
        return self.content_bytes / self.samples if self.samples else 0.0


@dataclass(frozen=True, slots=True)
class LatentNumbers:
    """Statistics of a latents dataset. `buckets` and `bucket_bytes` are samples and content bytes by HEIGHTxWIDTH;
    `crops` says of each bucket what the trainer sees."""

    volume: Volume
    buckets: dict[str, int]
    bucket_bytes: dict[str, int]
    labelled: int
    flipped: int
    crops: tuple[BucketCrops, ...]


@dataclass(frozen=True, slots=True)
class TextNumbers:
    """Statistics of a text dataset. `tokens` are true lengths after truncation to the limit."""

    volume: Volume
    tokens: Distribution | None
    truncated: int


def read_latents(dataset: Dataset) -> tuple[LatentNumbers, SampleIds]:
    """The statistics of `dataset`, and the ids of its samples in order."""
    content, samples, labelled, flipped = 0, 0, 0, 0
    buckets: Counter[str] = Counter()
    bucket_bytes: Counter[str] = Counter()
    ids: list[SampleIds] = []
    crops = CropPass()
    columns = ["shard", "key", "bytes", "bucket", "label", *CROP_COLUMNS]
    for table in dataset.tables(LATENTS_INDEX, columns, INDEX_DIR):
        ids.append(sample_ids(table))
        crops.add(ids[-1], table)
        samples += table.num_rows
        content += _sum(table["bytes"])
        labelled += len(table["label"]) - table["label"].null_count
        flipped += _sum(table["flipped"].cast(pa.int64()))
        groups = table.group_by("bucket", use_threads=False).aggregate([("bytes", "sum"), ("bytes", "count")])
        for row in groups.to_pylist():
            buckets[row["bucket"]] += row["bytes_count"]
            bucket_bytes[row["bucket"]] += row["bytes_sum"]
    volume = _volume(dataset, samples, content)
    order = sorted(buckets, key=lambda name: (-buckets[name], name))
    by_bucket, bytes_of = {b: buckets[b] for b in order}, {b: bucket_bytes[b] for b in order}
    numbers = LatentNumbers(volume, by_bucket, bytes_of, labelled, flipped, crops.buckets())
    return numbers, distinct(ids, dataset.url)


def read_text(dataset: Dataset) -> tuple[TextNumbers, SampleIds]:
    """The statistics of `dataset`, and the ids of its samples in order."""
    content, samples, truncated = 0, 0, 0
    tokens = Histogram()
    ids: list[SampleIds] = []
    for table in dataset.tables(TEXT_INDEX, ["shard", "key", "bytes", "tokens", "truncated"], INDEX_DIR):
        ids.append(sample_ids(table))
        samples += table.num_rows
        content += _sum(table["bytes"])
        truncated += _sum(table["truncated"].cast(pa.int64()))
        tokens.add(table["tokens"].to_numpy())
    numbers = TextNumbers(_volume(dataset, samples, content), tokens.distribution(), truncated)
    return numbers, distinct(ids, dataset.url)


def _volume(dataset: Dataset, samples: int, content: int) -> Volume:
    kept = sum(entry.rows_kept for entry in dataset.entries)
    if samples != kept:
        raise DatasetError(
            f"{dataset.url}: the ledger counts {kept:,} samples, the indexes hold {samples:,}. Remove the dataset and "
            f"run pipelines.{dataset.info.stage} again."
        )
    disk = sum(o.bytes for entry in dataset.entries for o in entry.outputs if o.path.endswith(".tar"))
    return Volume(samples, content, disk)


def _sum(column: Any) -> int:
    return int(pc.sum(column).as_py() or 0)
