"""The data sets that a mixture is made of: opened, checked to fit together, and named by what is in them."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from schemas.dataset import NULL_TEXT_FILE
from schemas.errors import DatasetError
from schemas.reading import Dataset, open_dataset
from schemas.record import canonical_json
from schemas.selection import Selection, read_selection
from training.data.mixture import Source
from training.data.npy import parse_npy

_COMPILED_VERSION: Final = 1  # of the files that `compilation` writes


@dataclass(frozen=True, slots=True)
class Facts:
    """What the data sets say about themselves in `dataset.json`. Latents are used as (z - shift) * scaling.

    Where there is no text, `dim` and `max_tokens` are 0.
    """

    scaling_factor: float
    shift_factor: float
    channels: int
    downsample: int
    dim: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A data set on disk: where it lies, what it is, and which pipeline makes it."""

    url: str
    kind: str
    stage: str


@dataclass(frozen=True, slots=True, eq=False)
class OpenSource:
    """A source whose data sets are open and whole."""

    source: Source
    latents: Dataset
    flipped: Dataset | None
    text: tuple[Dataset, ...]
    selection: Selection | None
    ranges: dict[str, tuple[int, int]]  # of each shard, where its keys lie in the selection

    def selected(self, shard: str) -> Any:
        """The selected rows of `shard`, as a `pyarrow.Table` of shard and key."""
        start, stop = self.ranges.get(shard, (0, 0))
        return self.selection.rows.slice(start, stop - start) if self.selection else None


def open_source(source: Source) -> OpenSource:
    """Open the data sets of `source`. Raises `DatasetError` if one is not whole."""
    selection = read_selection(source.select) if source.select else None
    return OpenSource(
        source,
        open_dataset(source.latents, "latents").require_whole(),
        open_dataset(source.flipped, "latents").require_whole() if source.flipped else None,
        tuple(open_dataset(url, "text").require_whole() for url in source.text),
        selection,
        _ranges(selection) if selection else {},
    )


def source_digest(sources: Sequence[OpenSource]) -> str:
    """blake2b (128 bits) over where the data sets lie, what they say of themselves, and the digests of their files."""
    digest = hashlib.blake2b(f"{_COMPILED_VERSION}".encode(), digest_size=16)
    for opened in sources:
        digest.update(canonical_json(asdict(opened.source)).encode())
        digest.update((opened.selection.digest if opened.selection else "").encode())
        for dataset in (opened.latents, *([opened.flipped] if opened.flipped else []), *opened.text):
            digest.update(canonical_json(asdict(dataset.info)).encode())
            for entry in dataset.entries:
                digest.update(canonical_json([entry.unit, [asdict(output) for output in entry.outputs]]).encode())
    return digest.hexdigest()


def joint_facts(sources: Sequence[OpenSource]) -> Facts:
    """The facts that all data sets agree on. Raises `DatasetError` where they do not, or where one lacks a fact."""

    def agreed(name: str, datasets: Sequence[Dataset]) -> Any:
        values = {dataset.url: _fact(dataset, name) for dataset in datasets}
        first = datasets[0].url
        for url, value in values.items():
            if value != values[first]:
                raise DatasetError(
                    f"{first} has {name} {values[first]}, {url} has {value}. Use data sets of the same VAE and T5."
                )
        return values[first]

    latents = [dataset for s in sources for dataset in (s.latents, s.flipped) if dataset is not None]
    text = [dataset for s in sources for dataset in s.text]
    return Facts(
        scaling_factor=float(agreed("scaling_factor", latents)),
        shift_factor=float(agreed("shift_factor", latents)),
        channels=int(agreed("channels", latents)),
        downsample=int(agreed("downsample", latents)),
        dim=int(agreed("dim", text)) if text else 0,
        max_tokens=max((int(_fact(dataset, "max_tokens")) for dataset in text), default=0),
    )


def joint_null_text(sources: Sequence[OpenSource], dim: int) -> NDArray[np.float16]:
    """The embedding of the empty string, float16 [N0, dim], of all text data sets; [0, dim] if there are none.

    Raises `DatasetError` if one is not what its dataset.json names, or another T5's than the first.
    """
    text = [dataset for s in sources for dataset in s.text]
    found = [_null_text(dataset, dim) for dataset in text]
    for dataset, null_text in zip(text, found, strict=True):
        if not np.array_equal(null_text, found[0]):
            raise DatasetError(
                f"{dataset.url} embeds the empty caption otherwise than {text[0].url}. Use text of the same T5."
            )
    return found[0] if found else np.empty((0, dim), np.float16)


def _ranges(selection: Selection) -> dict[str, tuple[int, int]]:
    """Where the keys of each shard lie: rows are sorted by shard."""
    counts = pc.value_counts(selection.rows["shard"])
    shards, sizes = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
    ends = list(accumulate(sizes))
    return {shard: (end - size, end) for shard, size, end in zip(shards, sizes, ends, strict=True)}


def _fact(dataset: Dataset, name: str) -> int | float:
    value = dataset.info.facts.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DatasetError(f"{dataset.url}: dataset.json gives no number for {name}. Make the data set again.")
    return value


def _null_text(text: Dataset, dim: int) -> NDArray[np.float16]:
    where = f"{text.url}/{NULL_TEXT_FILE}"
    mend = f"Run pipelines.{text.info.stage} again to renew it."
    try:
        content = text.fs.cat_file(text.path(NULL_TEXT_FILE))
    except OSError as error:
        raise DatasetError(f"{where}: cannot be read ({error.strerror or error}). {mend}") from None
    expected = text.info.facts.get("null_digest")
    if xxhash.xxh3_128_hexdigest(content) != expected:
        raise DatasetError(f"{where}: not the null embedding that dataset.json names, damaged or another T5's. {mend}")
    null_text = parse_npy(content, where)
    if null_text.ndim != 2 or null_text.shape[1] != dim or not len(null_text) or null_text.dtype != np.float16:
        raise DatasetError(f"{where}: {null_text.dtype} {null_text.shape}, expected float16 [N, {dim}]. {mend}")
    return null_text
