"""Thumbnails of chosen samples, read from the source shards they came from, within a budget of bytes."""

import io
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from PIL import Image

from curation.images.decode import DecodePolicy, decode
from curation.refusal import Refusal
from curation.report.crops import CroppedSample
from curation.shards.container import Container, check_container, index_container, open_container
from curation.shards.grouping import Sample
from curation.shards.shard_index import find_samples, stored_index
from curation.shards.target import Target
from curation.shards.urls import shard_name
from curation.sources.base import Source

_QUALITIES: Final = (80, 65, 50, 35)
_SMALLEST_PX: Final = 48
_POLICY: Final = DecodePolicy(min_side=1, max_aspect=1e6)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A thumbnail to make: of which sample, at most `side_px` a side, and of what part if not of all of it."""

    shard: str
    key: str
    side_px: int
    crop: CroppedSample | None = None


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG of a picture that is `original_height` × `original_width` px."""

    jpeg: bytes
    height_px: int
    width_px: int
    original_height: int
    original_width: int


Pictures = dict[Wanted, Thumbnail | str]
"""For each thumbnail wanted, it, or one line why there is none."""


@dataclass(frozen=True, slots=True)
class PictureSource:
    """Where pictures lie: the shards, the adapter that reads them, and datasets that may hold their offset indexes (a
    shard without one is read through)."""

    shards: tuple[str, ...]
    source: Source
    indexed_by: tuple[str, ...]


def read_thumbnails(wanted: Sequence[Wanted], where: PictureSource, budget: int) -> Pictures:
    """The thumbnails, which together take at most `budget` bytes; each has an equal share of it, and is made smaller
    until it fits.

    Raises `UserError` for a shard that is none of the source's kind.
    """
    by_name = {shard_name(url): url for url in where.shards}
    by_shard: defaultdict[str, list[Wanted]] = defaultdict(list)
    for one in dict.fromkeys(wanted):
        by_shard[one.shard].append(one)
    most = budget // max(sum(map(len, by_shard.values())), 1)
    found: Pictures = {}
    for shard, here in by_shard.items():
        url = by_name.get(shard)
        if url is None:
            found |= dict.fromkeys(here, f"shard {shard} is not among the given --shards")
            continue
        check_container(url, where.source.container)
        rows = _find_rows(url, where, {one.key for one in here})
        with closing(open_container(url, where.source.container)) as container:
            for one in here:
                row = rows.get(one.key)
                found[one] = (
                    "not in the shard any more" if row is None else _thumbnail(container, row, where.source, one, most)
                )
    return found


def _find_rows(url: str, where: PictureSource, keys: set[str]) -> dict[str, Sample]:
    for dataset in map(Target, where.indexed_by):
        if stored_index(dataset, url, where.source.container) is not None:
            return {sample.key: sample for sample in find_samples(dataset, url, keys)}
    samples = index_container(url, where.source.container, shard_name(url))[1]
    return {sample.key: sample for sample in samples if sample.key in keys}


def _thumbnail(container: Container, row: Sample, source: Source, wanted: Wanted, most: int) -> Thumbnail | str:
    if row.refused is not None:
        return f"{row.refused.value}: {row.detail}"
    members = source.members(row.extensions)
    if isinstance(members, Refusal):
        return f"{members.reason.value}: {members.detail}"
    picture = container.read(row, members[:1])[members[0]]
    # A crop may be a small part of its picture, so such a picture is decoded larger than the thumbnail.
    least = 2 * wanted.side_px if wanted.crop else wanted.side_px
    decoded = decode(picture, _POLICY, at_least=(least, least))
    if isinstance(decoded, Refusal):
        return f"{decoded.reason.value}: {decoded.detail}"
    image = _cropped(decoded.image, wanted.crop) if wanted.crop else decoded.image
    jpeg, height, width = _fitting_jpeg(image, wanted.side_px, most)
    return Thumbnail(jpeg, height, width, decoded.original_height, decoded.original_width)


def _cropped(image: Image.Image, crop: CroppedSample) -> Image.Image:
    """The part that the crop box, which lies in the resized picture, covers in this one."""
    down, right = image.height / crop.resized_height, image.width / crop.resized_width
    top, left = crop.crop_top * down, crop.crop_left * right
    box = (left, top, left + crop.width_px * right, top + crop.height_px * down)
    size = (max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1])))
    part = image.resize(size, Image.Resampling.BICUBIC, box=box)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flipped else part


def _fitting_jpeg(image: Image.Image, side_px: int, most: int) -> tuple[bytes, int, int]:
    """JPEG, height and width of the picture at `side_px` or as much less as takes at most `most` bytes; at the smallest
    size it is what it is."""
    while True:
        small = image.copy()
        small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= most or (side_px <= _SMALLEST_PX and quality == _QUALITIES[-1]):
                return buffer.getvalue(), small.height, small.width
        side_px = max(_SMALLEST_PX, side_px * 3 // 4)
