"""The text stage: a captions dataset in, one T5 embedding a usable caption out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import fsspec
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash

from curation.checkpoints import Checkpoint
from curation.compute import Compute
from curation.execution.clock import PhaseClock
from curation.execution.stage import LEFT_OUT, StageSpec, Unit
from curation.features.codec import CODECS, INT8_GROUP, Codec, CodecError, encode
from curation.features.null_text import NullText, embed_null, stored_null, write_null
from curation.features.storage import store
from curation.features.t5 import TextEncoder, Tokens, batches_by_length
from curation.refusal import Refusal
from curation.shards.sinks import TableSink, TarSink
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from schemas.dataset import DatasetInfo, index_path, tar_path
from schemas.errors import UserError
from schemas.reading import damage_told
from schemas.status import USABLE_STATUSES, RejectReason
from schemas.tables import CAPTIONS, TEXT_INDEX

EXTENSION: Final = "text.npy"

CaptionColumn: TypeAlias = Literal["caption", "raw_caption", "generated"]

_STAGE_VERSION: Final = 2
_WINDOW_ROWS: Final = 512
"""Rows that are sorted by length together; their embeddings are in memory at once. Changes batches, and so bytes."""


@dataclass(frozen=True, slots=True)
class TextStage:
    """Embeds `column` of a captions dataset with the encoder of the T5 `checkpoint`, `dim` wide, stored by `codec`.

    `batch_tokens` bounds a padded batch and is part of the fingerprint: a batch's shape may move the last bits. Within
    that, batches follow from the unit's captions alone. `null` is the embedding of the empty string; the stage can
    tell its fingerprint without it, and needs it to work.
    """

    target: Target
    checkpoint: Checkpoint
    dim: int
    column: CaptionColumn = "caption"
    max_tokens: int = 120
    batch_tokens: int = 4096
    compute: Compute = field(default_factory=Compute)
    codec: Codec = "fp16"
    null: NullText | None = None

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise UserError(f"--codec {self.codec}: unknown; choose from {', '.join(CODECS)}.")
        if self.max_tokens < 2:
            raise UserError(f"--max-tokens {self.max_tokens}: must be at least 2, one word and the end token.")
        if self.batch_tokens < 1:
            raise UserError(f"--batch-tokens {self.batch_tokens}: must be at least 1.")

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        null = {"null_tokens": self.null.tokens, "null_digest": self.null.digest} if self.null else {}
        return StageSpec(
            name="text",
            version=_STAGE_VERSION,
            schema=TEXT_INDEX,
            config={
                "t5": self.checkpoint.identity,
                "column": self.column,
                "max_tokens": self.max_tokens,
                "batch_tokens": self.batch_tokens,
                "codec": self.codec if self.codec == "fp16" else f"{self.codec}:{INT8_GROUP}",
                **self.compute.config,
            },
            facts={
                "dim": self.dim,
                "max_tokens": self.max_tokens,
                "column": self.column,
                "dtype": "float16",
                "codec": self.codec,
                **null,
            },
        )

    def with_null(self, info: DatasetInfo | None) -> "TextStage":
        """This stage with its null embedding: the stored one if the dataset at the target (`info`) was made under the
        same settings, else a fresh one, for which the T5 is loaded."""
        same = info is not None and info.fingerprint == self.spec.fingerprint
        null = stored_null(self.target, info) if info is not None and same else None
        return dataclasses.replace(self, null=null or embed_null(self.checkpoint, self.compute, self.max_tokens))

    def open(self) -> "TextWorker":
        """Load the T5, and put the null embedding in its place before any unit is written."""
        if self.null is None:
            raise AssertionError("TextStage needs its null embedding before it can work")
        encoder = TextEncoder(self.checkpoint, self.compute)
        write_null(self.target, self.null)
        return TextWorker(self, encoder)


@dataclass(frozen=True, slots=True)
class _Embedded:
    text: str
    tokens: Tokens
    stored: npt.NDArray[Any] | None  # what the codec makes of the embedding; None if float16 cannot hold it


class TextWorker:
    """A loaded T5. Output is in the order of the input."""

    def __init__(self, stage: TextStage, encoder: TextEncoder) -> None:
        self._stage, self._encoder = stage, encoder

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Embed the unit."""
        tar = writer.tar(tar_path(unit.name))
        index = writer.table(index_path(unit.name), TEXT_INDEX)
        error = CodecError()
        with clock.phase("read"):
            rows = read_captions(unit.url, self._stage.column)
        for start in range(0, len(rows), _WINDOW_ROWS):
            window = rows[start : start + _WINDOW_ROWS]
            texts = [_selected_text(unit, row, self._stage.column) for row in window]
            embedded = iter(self._embed([t for t in texts if not isinstance(t, Refusal)], error, clock))
            with clock.phase("write"):
                for row, text in zip(window, texts, strict=True):
                    if isinstance(text, Refusal):
                        writer.reject(row["key"], text.reason, text.detail)
                    else:
                        _write(row, next(embedded), tar, index, writer)
        for name, value in error.figures.items():
            writer.measure(name, value)

    def close(self) -> None:
        """Give back the model."""
        self._encoder.close()

    def _embed(self, texts: Sequence[str], error: CodecError, clock: PhaseClock) -> list[_Embedded]:
        """Each text embedded, in order; what storing it costs goes to `error`."""
        with clock.phase("tokenise"):
            tokens = self._encoder.tokens(texts, self._stage.max_tokens)
        stored: dict[int, npt.NDArray[Any] | None] = {}
        for batch in batches_by_length([len(t) for t in tokens], self._stage.batch_tokens):
            with clock.phase("model"):
                encoded = self._encoder.encode([tokens[i] for i in batch])
            with clock.phase("codec"):
                for i, values in zip(batch, encoded, strict=True):
                    stored[i] = packed = encode(values, self._stage.codec)
                    if packed is not None:
                        error.add(values, packed)
        return [_Embedded(text, tokens[i], stored[i]) for i, text in enumerate(texts)]


def _selected_text(unit: Unit, row: dict[str, Any], column: CaptionColumn) -> str | Refusal:
    if unit.leaves_out(row["key"]):
        return Refusal(RejectReason.NOT_SELECTED, LEFT_OUT)
    return text_of(row, column)


def _write(row: dict[str, Any], made: _Embedded, tar: TarSink, index: TableSink, writer: UnitWriter) -> None:
    if made.stored is None:
        writer.reject(row["key"], RejectReason.NON_FINITE, "its embedding is not finite in float16")
        return
    index.write(
        [
            {
                "key": row["key"],
                "shard": row["shard"],
                **store(tar, row["key"], EXTENSION, made.stored),
                "tokens": len(made.tokens),
                "truncated": made.tokens.truncated,
                "caption_xxh64": xxhash.xxh64_intdigest(made.text.encode()),
            }
        ]
    )
    writer.keep(row["key"])
    writer.count("tokens", len(made.tokens))
    writer.count("truncated", int(made.tokens.truncated))


def read_captions(url: str, column: CaptionColumn) -> list[dict[str, Any]]:
    """Key, shard, status and `column` of every row of a captions table."""
    with fsspec.open(url, "rb") as file, damage_told(url):
        parquet = pq.ParquetFile(file)
        CAPTIONS.check(parquet.schema_arrow, url)
        return parquet.read(columns=["key", "shard", "status", column]).to_pylist()


def text_of(row: dict[str, Any], column: CaptionColumn) -> str | Refusal:
    """The row's text as it is, or why it is not embedded. Only `caption` is judged by its status."""
    if column == "caption" and row["status"] not in USABLE_STATUSES:
        return Refusal(RejectReason.UNUSABLE_CAPTION, f"caption status {row['status']}")
    text = row[column]
    if text is None or not text.strip():
        return Refusal(RejectReason.NO_CAPTION, f"{column} is {'null' if text is None else 'empty'}")
    return str(text)
