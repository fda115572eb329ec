"""What there is to train on: latents and text joined by (shard, key), as arrays in an order that only the data decides.

Rows are sorted by dataset of the mixture, shard and key: the order of the ledger, of units, of files on disk does not
matter. Where a sample's bytes lie is not part of the digest either, so a data set that was cut into other units trains
the same. The arrays are maps of files that all processes of a machine share, see `compilation`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.errors import DatasetError, UserError
from schemas.location import file_system
from training.data.compilation import FLIPPED, LATENTS, About, Compiled, Side, compiled, text_field
from training.data.mixture import Source
from training.data.population import Population, Stratum
from training.data.sources import Facts as Facts
from training.data.sources import open_source, source_digest


@dataclass(frozen=True, slots=True, eq=False)
class Store:
    """One data set on disk, as a reader needs it."""

    url: str
    kind: str
    stage: str  # the pipeline that makes it anew
    fs: Any


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where one feature of each sample lies: a slice of a tar, and the xxh3 of its bytes."""

    stores: tuple[Store, ...]
    paths: tuple[str, ...]  # as the file system of their store takes them
    owner: tuple[int, ...]  # of each path, the store that it belongs to
    file: NDArray[np.int32]  # [N] index into paths, -1 where the sample lacks the feature
    offset: NDArray[np.int64]
    bytes: NDArray[np.uint32]
    xxh3: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """All samples that have both latents and text, in order; or all latents, where classes are trained on.

    Arrays are [N] unless said otherwise.
    """

    latents: Places
    flipped: Places | None  # latents of the mirrored pictures, where any dataset has them
    text: tuple[Places, ...]  # one a caption variant; none where classes are trained on
    facts: Facts
    null_text: NDArray[np.float16]  # [N0, D] what stands in for a dropped caption: the T5 embedding of the empty string
    shard: Any  # pyarrow string array
    key: Any  # pyarrow string array
    sample: NDArray[np.uint64]  # see training.data.randomness.sample_id
    bucket: NDArray[np.int16]  # index into buckets
    buckets: tuple[tuple[int, int], ...]  # height and width in pixels
    tokens: NDArray[np.uint16]  # [N, V] of each caption variant, 0 where the sample lacks it
    original_size: NDArray[np.int32]  # [N, 2] height and width in pixels
    label: NDArray[np.int32]  # class index, -1 where the source has none
    members: NDArray[np.int32]  # see training.data.population
    about: About
    null_fills_caption: bool = False  # of null_text, as many rows count as the caption has tokens; else all of it

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def digest(self) -> str:
        """The name of all that the samples are."""
        return self.about.digest

    @property
    def unmatched(self) -> tuple[int, int]:
        """Latents without any text, and texts without latents, that were left out."""
        return self.about.without_text, self.about.without_latents

    def name(self, row: int) -> str:
        """SHARD/KEY of a row, for messages."""
        return f"{self.shard[row].as_py()}/{self.key[row].as_py()}"

    def require_labels(self, classes: int) -> None:
        """Raise `DatasetError`, naming the first sample, unless each has a label from 0 to `classes` - 1."""
        odd = (self.label < 0) | (self.label >= classes)
        if not odd.any():
            return
        first = int(np.argmax(odd))
        said = f"label {self.label[first]}" if self.label[first] >= 0 else "none"
        raise DatasetError(
            f"{int(odd.sum()):,} of {len(self):,} samples have no label from 0 to {classes - 1:,} (the first, "
            f"{self.name(first)}, has {said}). Make the latents from a source with classes, such as imagenet, or set "
            f"--classes."
        )

    def rows_of(self, name: str) -> list[int]:
        """The rows of SHARD/KEY, one a dataset of the mixture that has it. Raises `DatasetError` if there is none."""
        shard, _, key = name.partition("/")
        rows = pc.and_(pc.equal(self.shard, shard), pc.equal(self.key, key))
        found = np.flatnonzero(rows.to_numpy(zero_copy_only=False))
        if not len(found):
            raise DatasetError(f"{name}: no such sample, or it lacks latents or text. Give SHARD/KEY of another.")
        return found.tolist()

    def population(self) -> Population:
        """What the plan needs of it."""
        return Population(
            digest=self.digest,
            starts=self.about.starts,
            strata=tuple(Stratum(*stratum) for stratum in self.about.strata),
            members=self.members,
            latent_cells=tuple((h // self.facts.downsample, w // self.facts.downsample) for h, w in self.buckets),
            sample=self.sample,
            tokens=self.tokens,
            flipped=None if self.flipped is None else self.flipped.file,
            null_tokens=len(self.null_text),
        )

    def describe(self) -> str:
        """How many samples there are and what was left out, for people."""
        about = self.about
        said = [
            f"{about.without_text:,} latents without text, {about.without_latents:,} texts without latents left out"
            if any(self.unmatched)
            else "",
            f"{about.selected:,} selected, {about.absent:,} of them absent" if about.selected else "",
            *(f"{n:,} lack caption variant {v + 1}, their others are used" for v, n in enumerate(about.lacking) if n),
            f"{about.unflipped:,} lack flipped latents, the others are used" if about.unflipped else "",
        ]
        left_out = "; ".join(filter(None, said))
        return f"{len(self):,} samples in {len(self.buckets)} buckets{f' ({left_out})' if left_out else ''}"


def open_manifest(
    latents_url: str, text_url: str, max_unmatched: float = 0.0, cache: Path | None = None, select: str = ""
) -> Manifest:
    """The manifest of one latents and one text data set, see `open_mixture`."""
    return open_mixture([Source("", latents_url, (text_url,), "", select)], max_unmatched, cache)


def open_mixture(sources: Sequence[Source], max_unmatched: float = 0.0, cache: Path | None = None) -> Manifest:
    """Open and join the data sets of `sources`. What was compiled before is found again in the directory `cache`.

    Either all sources have text, or none has, for training on classes.

    Raises `DatasetError` if a data set is not whole or holds a sample twice, if nothing joins, if more than the
    fraction `max_unmatched` of all samples has no partner, or if the data sets do not fit together.
    """
    if not 0 <= max_unmatched <= 1:
        raise UserError(f"--max-unmatched {max_unmatched} is no share. Use 0 to 1.")
    bare = [source for source in sources if not source.text]
    if bare and len(bare) < len(sources):
        raise DatasetError(f"dataset {bare[0].name} has no text, others have. Give all of them text, or none.")
    opened = [open_source(source) for source in sources]
    content = compiled(opened, source_digest(opened), cache)
    _require_matched(content.about, sources, max_unmatched)
    return _assemble(content)


def _require_matched(about: About, sources: Sequence[Source], max_unmatched: float) -> None:
    unmatched = about.without_text + about.without_latents
    total = about.starts[-1] + unmatched
    urls = ", ".join(" and ".join((source.latents, *source.text)) for source in sources)
    if not about.starts[-1] and about.selected:
        raise DatasetError(f"{urls}: hold none of the {about.selected} selected samples. Select from the same images.")
    if not about.starts[-1]:
        raise DatasetError(f"{urls} have no sample in common. Use data sets made from the same images.")
    for source, (start, stop) in zip(sources, pairwise(about.starts), strict=True):
        if start == stop:
            raise DatasetError(f"dataset {source.name}: none of {source.latents} is left. Leave it out of the mixture.")
    if unmatched > max_unmatched * total:
        raise DatasetError(
            f"{about.without_text} latents have no text{_some(about.without_text, about.first_without_text)}, and "
            f"{about.without_latents} texts no latents{_some(about.without_latents, about.first_without_latents)}, of "
            f"{total} samples in {urls}. Make the missing ones, or leave them out with "
            f"--max-unmatched {math.ceil(1e4 * unmatched / total) / 1e4:g}."
        )


def _some(count: int, names: Sequence[str]) -> str:
    return f" ({', '.join(names)}{', ...' if count > len(names) else ''})" if names else ""


def _assemble(content: Compiled) -> Manifest:
    about, rows = content.about, content.rows
    stores = {info: Store(info.url, info.kind, info.stage, file_system(info.url)[0]) for info in about.stores}

    def places(field: str, side: Side) -> Places:
        mine = sorted({about.stores[number] for number in side.owner}, key=about.stores.index)
        column = rows[field]
        return Places(
            stores=tuple(stores[info] for info in mine),
            paths=side.paths,
            owner=tuple(mine.index(about.stores[number]) for number in side.owner),
            file=column["file"],
            offset=column["offset"],
            bytes=column["bytes"],
            xxh3=column["xxh3"],
        )

    return Manifest(
        latents=places(LATENTS, about.latents),
        flipped=places(FLIPPED, about.flipped) if about.flipped is not None else None,
        text=tuple(places(text_field(number), side) for number, side in enumerate(about.text)),
        facts=about.facts,
        null_text=content.null_text,
        shard=content.names["shard"],
        key=content.names["key"],
        sample=rows["sample"],
        bucket=rows["bucket"],
        original_size=rows["original_size"],
        label=rows["label"],
        tokens=content.tokens,
        buckets=tuple((height, width) for height, width in about.buckets),
        members=content.members,
        about=about,
    )
