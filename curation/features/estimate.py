"""How many bytes a feature job will write, told before it runs from a sample of its input; nothing is written."""

import math
import posixpath
import random
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

from curation.features.codec import Codec, int8_groups
from curation.features.latents import LatentsStage
from curation.features.storage import npy_bytes
from curation.features.t5 import load_tokenizer, tokenise
from curation.features.text import TextStage, read_captions, text_of
from curation.images.row_count import estimate_rows, size_text
from schemas.dataset import table_path
from schemas.embedding import int8_record
from schemas.errors import UserError
from schemas.reading import Dataset
from schemas.selection import Selection

SAMPLED_CAPTIONS: Final = 512

_BLOCK: Final = 512
_INDEX_ROW: Final = 64
"""Bytes of a row of the index on disk, about: compressed, most of it the digest and the key."""
_NORMAL_95: Final = 1.96


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of a job with its 95 % interval [low, high], and in `basis` what that rests on, one line each."""

    bytes: float
    low: float
    high: float
    rows: float
    basis: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The estimate for a person."""
        each = self.bytes / self.rows if self.rows else 0.0
        total = f"{size_text(self.bytes)} ({size_text(self.low)} to {size_text(self.high)})"
        return [f"{total} for about {self.rows:,.0f} rows, {each:,.0f} B a row", *self.basis]


def member_bytes(content: int) -> int:
    """What a member of `content` bytes takes: in the tar its header and padding, and its row of the index."""
    return _BLOCK + -(-content // _BLOCK) * _BLOCK + _INDEX_ROW


def embedding_bytes(tokens: int, dim: int, codec: Codec) -> int:
    """The length of the .npy member of an embedding of `tokens` tokens."""
    record = np.dtype("<f2") if codec == "fp16" else int8_record(dim, int8_groups(dim))
    shape = (1, dim) if codec == "fp16" else (1,)
    one = np.zeros(shape, record)
    return len(npy_bytes(one)) + (tokens - 1) * one.nbytes


def estimate_latents(stage: LatentsStage, urls: Sequence[str], selection: Selection | None = None) -> Estimate:
    """Bytes of `stage` over the shards `urls`, all pictures (or all of `selection`) kept.

    With aspect buckets the interval spans the smallest to the largest bucket.
    """
    found = estimate_rows(stage.target, stage.source, urls, selection)
    sizes = [member_bytes(_latent_bytes(stage, height, width)) for height, width in stage.sizes_px]
    basis = [found.basis, "every row is taken to be kept; rejected pictures make it less"]
    if len(sizes) > 1:
        basis.append(f"aspect buckets of {min(sizes):,} to {max(sizes):,} B a picture; the interval spans them")
    low, high = found.low * min(sizes), found.high * max(sizes)
    return Estimate(found.rows * statistics.fmean(sizes), low, high, found.rows, tuple(basis))


def estimate_text(stage: TextStage, captions: Dataset, selection: Selection | None = None) -> Estimate:
    """Bytes of `stage` over the dataset `captions`, from the token counts of up to `SAMPLED_CAPTIONS` rows drawn alike.

    Loads the tokenizer alone. Captions that are not usable write nothing, and count so. Of a `selection` the size is
    known, and the drawn rows that are in it tell the rest. Raises `UserError` if it is so small that none was drawn.
    """
    counts = {table_path(entry.unit): entry.rows_kept for entry in captions.entries}
    tokenizer, sizes, lengths = load_tokenizer(stage.checkpoint), list[int](), list[int]()
    for path, numbers in sampled_rows(counts).items():
        rows = read_captions(posixpath.join(captions.url, path), stage.column)
        chosen = [rows[number] for number in numbers if _is_selected(rows[number], selection)]
        texts = [text_of(row, stage.column) for row in chosen]
        used = [len(t) for t in tokenise(tokenizer, [t for t in texts if isinstance(t, str)], stage.max_tokens)]
        sizes += [member_bytes(embedding_bytes(length, stage.dim, stage.codec)) for length in used]
        sizes += [0] * (len(texts) - len(used))
        lengths += used
    total, rows_in = float(embedding_bytes(1, stage.dim, "fp16")), sum(counts.values())
    if selection is not None:
        rows_in = sum(len(selection.keys_of(shard)) for shard in {entry.shard for entry in captions.entries})
        if not sizes:
            raise UserError(f"none of {SAMPLED_CAPTIONS} captions drawn is in the selection: too few to estimate from.")
    basis = [f"{len(sizes):,} of {rows_in:,} captions read: {len(lengths):,} usable"]
    if lengths:
        basis[0] += f", {statistics.fmean(lengths):.1f} tokens on average, {max(lengths):,} at most"
    basis.append(f"width {stage.dim:,}, codec {stage.codec}")
    total += rows_in * statistics.fmean(sizes or [0])
    # Of a sample that is all there is, nothing is left to guess.
    share_left = 1 - len(sizes) / rows_in if rows_in else 0.0
    deviation = statistics.stdev(sizes) if len(sizes) > 1 else 0.0
    error = _NORMAL_95 * deviation * math.sqrt(share_left / max(len(sizes), 1)) * rows_in
    kept = rows_in * len(lengths) / max(len(sizes), 1)
    return Estimate(total, max(0.0, total - error), total + error, kept, tuple(basis))


def sampled_rows(counts: Mapping[str, int]) -> dict[str, list[int]]:
    """Up to `SAMPLED_CAPTIONS` rows drawn alike from units of `counts` rows: unit to row numbers, always the same."""
    units, ends = list(counts), list(accumulate(counts.values()))
    total = ends[-1] if ends else 0
    out: dict[str, list[int]] = {}
    for number in sorted(random.Random(0).sample(range(total), min(SAMPLED_CAPTIONS, total))):
        place = bisect_right(ends, number)
        out.setdefault(units[place], []).append(number - (ends[place] - counts[units[place]]))
    return out


def _is_selected(row: Mapping[str, str], selection: Selection | None) -> bool:
    return selection is None or row["key"] in selection.keys_of(row["shard"])


def _latent_bytes(stage: LatentsStage, height_px: int, width_px: int) -> int:
    cell = stage.vae.downsample
    header = len(npy_bytes(np.zeros((2, stage.vae.channels, 0, width_px // cell), np.float16)))
    return header + 2 * stage.vae.channels * (height_px // cell) * (width_px // cell) * 2
