"""Samples for the loaders' benchmarks: generated, and written as latentmill's own data sets.

Values are random, lengths are real: words of the captions in the folder of test data times the tokens a word that
docs/LOG.md measured, up to the limit of 120; without the folder, a normal distribution with their mean and spread.
"""

import gzip
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash

from curation.features.codec import encode_int8, int8_groups
from curation.features.storage import npy_bytes, store
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import (
    DATASET_FILE,
    NULL_TEXT_FILE,
    PLAN_FILE,
    DatasetInfo,
    PlannedUnit,
    PlanRecord,
    RunFacts,
    index_path,
    tar_path,
)
from schemas.record import to_json
from schemas.table import TableSchema
from schemas.tables import LATENTS_INDEX, TEXT_INDEX

WIDTH: Final = 4096
SHARD: Final = "shard"
LIMIT: Final = 120
LATENT: Final = (2, 4, 32, 32)  # of a picture of 256 px
_TOKENS_A_WORD: Final = {"dense": 97.7 / 86.7, "alt": 17.5 / 8.7}
_TOKENS: Final = {"dense": (97.7, 18.0), "alt": (17.5, 12.0)}
_POOL: Final = 1 << 22
_UNIT: Final = 250  # samples a tar


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Samples whose content follows from their number. `codec` is fp16 or int8, `buckets` heights and widths in px."""

    tokens: npt.NDArray[np.int64]  # [N]
    codec: str
    pool: npt.NDArray[np.float16]
    buckets: tuple[tuple[int, int], ...] = ((256, 256),)
    width: int = WIDTH

    def __len__(self) -> int:
        return len(self.tokens)

    def bucket(self, i: int) -> tuple[int, int]:
        """Height and width of sample `i` in pixels."""
        return self.buckets[i * 7919 % len(self.buckets)]

    def latent(self, i: int) -> npt.NDArray[np.float16]:
        """Mean and standard deviation of sample `i`: [2, 4, h, w]."""
        height, width = self.bucket(i)
        shape = (*LATENT[:2], height // 8, width // 8)
        return self._some(i, int(np.prod(shape))).reshape(shape)

    def text(self, i: int) -> npt.NDArray[Any]:
        """The embedding of sample `i` as it is stored."""
        values = self._some(3 * i + 1, int(self.tokens[i]) * self.width).reshape(-1, self.width)
        return values if self.codec == "fp16" else encode_int8(values.astype(np.float32), int8_groups(self.width))

    @property
    def token_bytes(self) -> int:
        """Stored bytes of a token."""
        return 2 * self.width if self.codec == "fp16" else 2 * int8_groups(self.width) + self.width

    @property
    def bytes(self) -> int:
        """Bytes of all latents and text, without headers."""
        return sum(self.latent(i).nbytes for i in range(len(self))) + int(self.tokens.sum()) * self.token_bytes

    def _some(self, i: int, count: int) -> npt.NDArray[np.float16]:
        start = i * 104_729 % (len(self.pool) - count)
        return self.pool[start : start + count]


def corpus(samples: int, lengths: str, codec: str, data: Path, **options: Any) -> Corpus:
    """`samples` samples with the lengths of `dense` machine captions or of `alt` text."""
    pool = np.random.default_rng(0).standard_normal(_POOL, np.float32).astype(np.float16)
    return Corpus(_lengths(samples, lengths, data), codec, pool, **options)


def _lengths(samples: int, kind: str, data: Path) -> npt.NDArray[np.int64]:
    rng = np.random.default_rng(1)
    captions = _captions(kind, data) if data.is_dir() else []
    if captions:
        words = np.array([len(caption.split()) for caption in captions])[rng.integers(len(captions), size=samples)]
        tokens = np.rint(words * _TOKENS_A_WORD[kind])
    else:
        tokens = np.rint(rng.normal(*_TOKENS[kind], size=samples))
    return np.clip(tokens, 2, LIMIT).astype(np.int64)


def _captions(kind: str, data: Path) -> Sequence[str]:
    if kind == "alt":
        return [
            text for text in pq.read_table(data / "alt-text/laion-url-text.dev.parquet")["TEXT"].to_pylist() if text
        ]
    with gzip.open(data / "dense-captions/opera-coco-machine.dev.jsonl.gz", "rt", encoding="utf-8") as file:
        return [row["caption"] for row in map(json.loads, file) if row["model"] == "llava-1.5"]


def data_folder() -> Path:
    """The folder of real test data, which need not be there."""
    return Path(os.environ.get("LATENTMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def write_data_sets(samples: Corpus, root: Path, numbers: range | None = None) -> tuple[str, str]:
    """The samples `numbers` (default: all) as a latents and a text data set under `root`; their directories."""
    numbers = range(len(samples)) if numbers is None else numbers
    latents, text = [], []
    for i in numbers:
        name = {"key": f"{i:08d}", "shard": SHARD}
        height, width = samples.bucket(i)
        size = {"bucket": f"{height}x{width}", "height_px": height, "width_px": width}
        size |= {f"{name}_height": 2 * height for name in ("original", "resized")}
        size |= {f"{name}_width": 2 * width for name in ("original", "resized")}
        latents.append(name | size | {"crop_top": 0, "crop_left": 0, "flipped": False, "label": None})
        text.append(name | {"tokens": int(samples.tokens[i]), "truncated": False, "caption_xxh64": i})
    facts: dict[str, Any] = {"scaling_factor": 0.18215, "shift_factor": 0.0, "channels": LATENT[1], "downsample": 8}
    _write(root / "latents", LATENTS_INDEX, latents, map(samples.latent, numbers), "latent.npy", facts)
    null = npy_bytes(samples.pool[: samples.width].reshape(1, -1))
    facts = {"dim": samples.width, "max_tokens": LIMIT, "codec": samples.codec, "null_tokens": 1}
    facts["null_digest"] = xxhash.xxh3_128_hexdigest(null)
    _write(root / "text", TEXT_INDEX, text, map(samples.text, numbers), "text.npy", facts)
    (root / "text" / NULL_TEXT_FILE).write_bytes(null)
    return str(root / "latents"), str(root / "text")


def _write(
    root: Path,
    schema: TableSchema,
    rows: list[dict[str, Any]],
    arrays: Iterator[npt.NDArray[Any]],
    extension: str,
    facts: dict[str, Any],
) -> None:
    target, fingerprint = Target(str(root)), "f" * 32
    planned = [
        PlannedUnit(f"unit-{start:09d}", SHARD, start, min(start + _UNIT, len(rows)))
        for start in range(0, len(rows), _UNIT)
    ]
    for unit in planned:
        with UnitWriter(target, unit, schema.kind) as writer:
            tar, index = writer.tar(tar_path(unit.name)), writer.table(index_path(unit.name), schema)
            for row in rows[unit.start : unit.stop]:
                index.write([row | store(tar, row["key"], extension, next(arrays))])
                writer.keep(row["key"])
            writer.commit(fingerprint, (), RunFacts(0.0, {}, 1, "", {}))
    info = DatasetInfo(
        schema.kind, schema.version, schema.kind, {}, fingerprint, "benchmark", schema.kind, _UNIT, facts=facts
    )
    target.write_text(DATASET_FILE, to_json(info))
    target.write_text(PLAN_FILE, to_json(PlanRecord((SHARD,), tuple(planned))))
