"""Thumbnails of the chosen samples, read from the source shards they came from."""

import io
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from PIL import Image

from curation.images.decode import DecodePolicy, decode
from curation.refusal import Refusal
from curation.report.captions import ChosenSample
from curation.shards.container import Container, check_container, index_container, open_container
from curation.shards.grouping import Sample
from curation.shards.shard_index import read_samples, stored_index
from curation.shards.target import Target
from curation.shards.urls import shard_name
from curation.sources.base import Source

THUMBNAIL_PX: Final = 256
_QUALITY: Final = 80
_POLICY: Final = DecodePolicy(min_side=1, max_aspect=1e6)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A JPEG of at most 256 px a side, of a picture that is `original_height` × `original_width` px."""

    jpeg: bytes
    height_px: int
    width_px: int
    original_height: int
    original_width: int


def read_thumbnails(
    chosen: Sequence[ChosenSample], urls: Sequence[str], source: Source, captions_url: str
) -> list[Thumbnail | str]:
    """For each chosen sample its thumbnail, or one line why there is none.

    `captions_url` is the dataset that may hold the shards' offset indexes; a shard without one is read through.
    Raises `UserError` for a shard that is none of `source`'s kind.
    """
    by_name = {shard_name(url): url for url in urls}
    by_shard: defaultdict[str, list[int]] = defaultdict(list)
    for i, sample in enumerate(chosen):
        by_shard[sample.shard].append(i)
    found: dict[int, Thumbnail | str] = {}
    for shard, places in by_shard.items():
        url = by_name.get(shard)
        if url is None:
            found |= dict.fromkeys(places, f"shard {shard} is not among the given --shards")
            continue
        check_container(url, source.container)
        keys = {chosen[i].key for i in places}
        rows = _find_rows(Target(captions_url), url, source, keys)
        with closing(open_container(url, source.container)) as container:
            for i in places:
                row = rows.get(chosen[i].key)
                found[i] = "not in the shard any more" if row is None else _thumbnail(container, row, source)
    return [found[i] for i in range(len(chosen))]


def _find_rows(target: Target, url: str, source: Source, keys: set[str]) -> dict[str, Sample]:
    index = stored_index(target, url, source.container)
    if index is None:
        samples: Sequence[Sample] = index_container(url, source.container, shard_name(url))[1]
    else:
        samples = read_samples(target, url, 0, index.rows)
    return {sample.key: sample for sample in samples if sample.key in keys}


def _thumbnail(container: Container, row: Sample, source: Source) -> Thumbnail | str:
    if row.refused is not None:
        return f"{row.refused.value}: {row.detail}"
    members = source.members(row.extensions)
    if isinstance(members, Refusal):
        return f"{members.reason.value}: {members.detail}"
    picture = container.read(row, members[:1])[members[0]]
    decoded = decode(picture, _POLICY, at_least=(THUMBNAIL_PX, THUMBNAIL_PX))
    if isinstance(decoded, Refusal):
        return f"{decoded.reason.value}: {decoded.detail}"
    image = decoded.image
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return Thumbnail(buffer.getvalue(), image.height, image.width, decoded.original_height, decoded.original_width)
