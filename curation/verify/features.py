"""The members of a feature tar against their index, number by number, and the statistics of latents by channel."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.features.storage import parse_member
from curation.shards.tar_scan import Member
from curation.shards.tar_writer import quote_key
from curation.verify.findings import Findings
from schemas.dataset import NULL_TEXT_FILE, LedgerEntry, index_path, tar_path
from schemas.embedding import decode_embedding
from schemas.errors import SchemaError
from schemas.reading import Dataset
from schemas.tables import LATENTS_INDEX, TEXT_INDEX

INDEXES: Final = {schema.kind: schema for schema in (LATENTS_INDEX, TEXT_INDEX)}
_EXTENSIONS: Final = {"latents": "latent.npy", "text": "text.npy"}
_ROWS_AT_ONCE: Final = 1024


@dataclass(slots=True)
class ChannelStatistics:
    """Sums over latents as training uses them, (z - shift) * scaling: of the means, their squares, and variances."""

    count: int = 0  # values a channel
    total: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    variances: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, posterior: npt.NDArray[np.float16], shift: float, scaling: float) -> None:
        """Take in one sample, [2, C, h, w]."""
        mean, std = posterior.reshape(2, posterior.shape[1], -1).astype(np.float64)
        mean = (mean - shift) * scaling
        if not self.count:
            self.total, self.squares, self.variances = np.zeros((3, len(mean)))
        self.count += mean.shape[1]
        self.total += mean.sum(axis=1)
        self.squares += np.square(mean).sum(axis=1)
        self.variances += np.square(std * scaling).sum(axis=1)

    @property
    def mean(self) -> list[float]:
        """The mean of each channel; near 0 under the scaling that the VAE was made for."""
        return [float(value) for value in self.total / max(self.count, 1)]

    @property
    def std(self) -> list[float]:
        """The standard deviation of each channel of a draw from the posterior; near 1."""
        mean = self.total / max(self.count, 1)
        variance = (self.squares + self.variances) / max(self.count, 1) - mean**2
        return [float(value) for value in np.sqrt(np.maximum(variance, 0.0))]


@dataclass(slots=True)
class FeatureTotals:
    """What the members of a dataset add up to."""

    members: int = 0
    content_bytes: int = 0
    tokens: int = 0
    truncated: int = 0
    channels: ChannelStatistics = field(default_factory=ChannelStatistics)


class FeatureCheck:
    """Goes through the units of a feature dataset, those of one shard one after the other."""

    def __init__(self, dataset: Dataset, findings: Findings) -> None:
        self._dataset, self._findings = dataset, findings
        self._kind, self._facts = dataset.info.kind, dataset.info.facts
        self._shard, self._keys = "", set[str]()
        self.totals = FeatureTotals()

    def unit(self, entry: LedgerEntry, members: Sequence[Member]) -> None:
        """Check every member of `entry`'s tar, whose headers were found to be `members`."""
        if entry.shard != self._shard:
            self._shard, self._keys = entry.shard, set()
        names = {member.offset: member for member in members}
        before = self.totals.tokens, self.totals.truncated
        path = tar_path(entry.unit)
        try:
            with self._dataset.fs.open(self._dataset.path(path), "rb") as tar:
                for row in self._rows(entry):
                    tar.seek(row["offset"])
                    what = self._row(row, names, tar.read(row["bytes"]))
                    if what:
                        self._findings.wrong("members", f"{self._dataset.url}/{path}: {row['key']}", what)
        except (OSError, pa.ArrowException, SchemaError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._findings.wrong(
                "members", f"{self._dataset.url}/{path}", f"its index cannot be read ({lines[0][:200]})"
            )
            return
        if self._kind == "text":
            found = {"tokens": self.totals.tokens - before[0], "truncated": self.totals.truncated - before[1]}
            told = {name: entry.counts.get(name, 0) for name in found}
            if told != found:
                self._findings.wrong("members", f"{self._dataset.url}/{path}", f"index {found}, the ledger says {told}")

    def _rows(self, entry: LedgerEntry) -> Iterator[dict[str, Any]]:
        path = index_path(entry.unit)
        with self._dataset.fs.open(self._dataset.path(path), "rb") as file:
            parquet = pq.ParquetFile(file)
            INDEXES[self._kind].check(parquet.schema_arrow, path)
            for batch in parquet.iter_batches(batch_size=_ROWS_AT_ONCE):
                yield from batch.to_pylist()

    def _row(self, row: Mapping[str, Any], members: Mapping[int, Member], content: bytes) -> str:
        """What is wrong with one row and its member, in a few words; empty if nothing is."""
        if row["shard"] != self._shard:
            return f"of shard {row['shard']}, in a unit of {self._shard}"
        if row["key"] in self._keys:
            return "this key occurs twice in its shard"
        self._keys.add(row["key"])
        member = members.get(row["offset"])
        name = f"{quote_key(row['key'])}.{_EXTENSIONS[self._kind]}"
        if member is None or member.name != name or member.size != row["bytes"]:
            return f"no member {name} of {row['bytes']} bytes at byte {row['offset']}"
        if xxhash.xxh3_64_intdigest(content) != row["xxh3"]:
            return "its bytes are not what the index says (xxh3)"
        try:
            array = parse_member(content, "the member")
            return self._latent(row, array) if self._kind == "latents" else self._text(row, array)
        except SchemaError as error:
            return str(error)

    def _latent(self, row: Mapping[str, Any], array: npt.NDArray[Any]) -> str:
        cell, channels = int(self._facts["downsample"]), int(self._facts["channels"])
        expected = (2, channels, row["height_px"] // cell, row["width_px"] // cell)
        if array.dtype != np.float16 or array.shape != expected:
            return f"{array.dtype} {array.shape}, expected float16 {expected}"
        if not np.isfinite(array).all():
            return "not finite"
        if (array[1] < 0).any():
            return "a negative standard deviation"
        if row["bucket"] != f"{row['height_px']}x{row['width_px']}":
            return f"bucket {row['bucket']}, but {row['height_px']} x {row['width_px']} px"
        self.totals.channels.add(array, float(self._facts["shift_factor"]), float(self._facts["scaling_factor"]))
        self._count(row)
        return ""

    def _text(self, row: Mapping[str, Any], array: npt.NDArray[Any]) -> str:
        stored = "int8" if array.dtype.names else "fp16"
        if stored != self._facts.get("codec", "fp16"):
            return f"stored as {stored}, the dataset's codec is {self._facts.get('codec', 'fp16')}"
        embedding = decode_embedding(array, "the member")
        expected = (row["tokens"], int(self._facts["dim"]))
        limit = int(self._facts["max_tokens"])
        if embedding.shape != expected:
            return f"{embedding.dtype} {embedding.shape}, expected {expected}"
        if not np.isfinite(embedding).all():
            return "not finite"
        if not 1 <= row["tokens"] <= limit or (row["truncated"] and row["tokens"] != limit):
            cut = ", cut off" if row["truncated"] else ""
            return f"{row['tokens']} tokens{cut}, at a limit of {limit}"
        self.totals.tokens += row["tokens"]
        self.totals.truncated += int(row["truncated"])
        self._count(row)
        return ""

    def _count(self, row: Mapping[str, Any]) -> None:
        self.totals.members += 1
        self.totals.content_bytes += row["bytes"]


def check_null_text(dataset: Dataset, findings: Findings) -> None:
    """The embedding of the empty string against the digest and shape that dataset.json gives."""
    where, facts = f"{dataset.url}/{NULL_TEXT_FILE}", dataset.info.facts
    try:
        content = bytes(dataset.fs.cat_file(dataset.path(NULL_TEXT_FILE)))
    except OSError as error:
        findings.wrong("null text", where, f"cannot be read ({error.strerror or type(error).__name__})")
        return
    if xxhash.xxh3_128_hexdigest(content) != facts.get("null_digest"):
        findings.wrong("null text", where, "not the null embedding that dataset.json names")
        return
    try:
        null = parse_member(content, where)
    except SchemaError as error:
        findings.wrong("null text", where, str(error))
        return
    expected = (facts.get("null_tokens"), facts.get("dim"))
    if null.dtype != np.float16 or null.shape != expected or not np.isfinite(null).all():
        findings.wrong("null text", where, f"{null.dtype} {null.shape}, expected finite float16 {expected}")
