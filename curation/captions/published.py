"""Captions that somebody published, as a captions dataset: joined to the pictures by key, judged by the same rules.

No model runs, and of a JPEG only the header is read, for its size. A picture for which no caption
was published is refused with that reason; captions for which there is no picture are found after the job.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from curation.captions.quality import RULES_VERSION, clean, measure
from curation.captions.t5_counter import t5_counter
from curation.checkpoints import Checkpoint
from curation.execution.clock import PhaseClock
from curation.execution.plan import ShardPlan
from curation.execution.prefetch import map_ahead
from curation.execution.stage import LEFT_OUT, StageSpec, Unit
from curation.images.decode import DECODE_VERSION, DecodePolicy, decode, jpeg_size
from curation.images.formats import sniff
from curation.ingest.keyed_index import KeyedIndex
from curation.ingest.keyed_rows import KeyedBy, split_key
from curation.refusal import Refusal
from curation.shards.container import Container, open_container
from curation.shards.fingerprint import digest_of
from curation.shards.grouping import Sample
from curation.shards.shard_index import read_samples, require_unchanged
from curation.shards.sinks import HashingFile
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.sources.base import ImageSample, Source
from schemas.dataset import REJECTS_DIR, UNMATCHED_FILE, InputIdentity, table_path
from schemas.reading import open_dataset
from schemas.status import RejectReason
from schemas.tables import CAPTIONS, REJECTS, UNMATCHED

_STAGE_VERSION: Final = 1
_HEAD_BYTES: Final = 64 << 10
_THREADS: Final = 4
_AHEAD: Final = 256
_UNMATCHED_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class PublishedStage:
    """Joins the captions in `index` (see curation.ingest.keyed_index) to `source`'s pictures.

    `model` and `prompt` say what made the captions, as far as it is known. A unit is a whole shard.
    """

    target: Target
    source: Source
    index: str
    keyed: KeyedBy
    policy: DecodePolicy
    model: str
    prompt: str = ""
    t5_tokenizer: Checkpoint | None = None

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec(
            name="published",
            version=_STAGE_VERSION,
            schema=CAPTIONS,
            config={
                "engine": "published",
                "model": self.model,
                "prompt": self.prompt,
                "keyed": dataclasses.asdict(self.keyed),
                "source": {"name": self.source.name, "version": self.source.version},
                "decode": {**dataclasses.asdict(self.policy), "version": DECODE_VERSION},
                "rules_version": RULES_VERSION,
                "t5_tokenizer": self.t5_tokenizer.identity if self.t5_tokenizer else None,
            },
        )

    def open(self) -> "PublishedWorker":
        """Open the index."""
        return PublishedWorker(self, t5_counter(self.t5_tokenizer))


@dataclass(frozen=True, slots=True)
class _Picture:
    """What a row needs of its picture, which was not decoded."""

    sample: ImageSample
    width: int
    height: int


class PublishedWorker:
    """An open index."""

    def __init__(self, stage: PublishedStage, t5_tokens: Callable[[str], int] | None) -> None:
        self._stage, self._t5_tokens = stage, t5_tokens
        self._index = KeyedIndex(stage.index)
        self._prompt_id = digest_of(["published", stage.model, stage.prompt])[:16]

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Join the shard, in its order."""
        stage, shard = self._stage, unit.planned.shard
        rows = read_samples(stage.target, unit.url, unit.planned.start, unit.planned.stop)
        names = {row.key: stage.keyed.of_sample(row.key, shard) for row in rows}
        with clock.phase("join"):
            texts = self._index.texts(sorted(set(names.values())))
        shared = Counter(names.values())
        sink = writer.table(table_path(unit.name), CAPTIONS)
        container = open_container(unit.url, stage.source.container)
        try:

            def read(row: Sample) -> tuple[str, _Picture] | Refusal:
                if unit.leaves_out(row.key):
                    return Refusal(RejectReason.NOT_SELECTED, LEFT_OUT)
                text = _only_text(texts.get(names[row.key], ()), shared[names[row.key]])
                if isinstance(text, Refusal):
                    return text
                picture = self._picture(container, row)
                return picture if isinstance(picture, Refusal) else (text, picture)

            found = map_ahead(read, rows, threads=_THREADS, ahead=_AHEAD)
            for row in rows:
                with clock.phase("read"):
                    made = next(found)
                if isinstance(made, Refusal):
                    writer.reject(row.key, made.reason, made.detail)
                    continue
                with clock.phase("judge and write"):
                    caption = self._row(shard, *made)
                    sink.write([caption])
                    writer.keep(row.key)
                    writer.count(f"status {caption['status']}")
            found.close()
        finally:
            container.close()
        require_unchanged(stage.target, unit.url, stage.source.container, unit.inputs)

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def _picture(self, container: Container, row: Sample) -> _Picture | Refusal:
        """The sample with no more of its picture than is needed to tell its size."""
        source, policy = self._stage.source, self._stage.policy
        if row.refused is not None:
            return Refusal(row.refused, row.detail)
        wanted = source.members(row.extensions)
        if isinstance(wanted, Refusal):
            return wanted
        image = wanted[0]
        head = container.head(row, image, _HEAD_BYTES)
        size: tuple[int, int] | Refusal | None = jpeg_size(head, policy) if sniff(head) == "JPEG" else None
        if size is None or (isinstance(size, Refusal) and size.reason == RejectReason.CORRUPT):
            # Another format, or more than 64 KiB of metadata: the whole file tells.
            decoded = decode(container.read(row, [image])[image], policy, at_least=(1, 1))
            if isinstance(decoded, Refusal):
                return decoded
            size = decoded.original_height, decoded.original_width
        if isinstance(size, Refusal):
            return size
        sample = source.sample(row.key, {image: head, **container.read(row, wanted[1:])})
        return sample if isinstance(sample, Refusal) else _Picture(sample, width=size[1], height=size[0])

    def _row(self, shard: str, text: str, picture: _Picture) -> dict[str, Any]:
        cleaned = clean(text, "stop", prompt=self._stage.prompt, mean_logprob=None, t5_tokens=self._t5_tokens)
        return {
            "key": picture.sample.key,
            "shard": shard,
            "width": picture.width,
            "height": picture.height,
            "raw_caption": picture.sample.caption,
            "generated": text,
            "caption": cleaned.text,
            "status": cleaned.status.value,
            "flags": sorted(cleaned.flags),
            "finish_reason": "stop",
            "error": None,
            "n_prompt_tokens": 0,
            "n_tokens": 0,
            "n_t5_tokens": cleaned.n_t5_tokens,
            **dataclasses.asdict(measure(text)),
            "mean_logprob": None,
            "prompt_id": self._prompt_id,
            "rules_version": RULES_VERSION,
            "seed": -1,
        }


def with_captions(plans: Iterator[ShardPlan], captions: InputIdentity) -> Iterator[ShardPlan]:
    """`plans` with the published captions as an input of each unit."""
    for plan in plans:
        yield replace(plan, units=tuple(replace(unit, inputs=(*unit.inputs, captions)) for unit in plan.units))


def list_unmatched(target: Target, index: str, keyed: KeyedBy) -> int:
    """Write the captions for which the dataset at `target` knows no picture to `unmatched.parquet`; how many.

    A picture counts as known if it is a sample of any shard of the dataset, refused or not.
    """
    count = 0
    temporary = target.temporary(UNMATCHED_FILE)
    file = HashingFile(temporary)
    try:
        with pq.ParquetWriter(file, UNMATCHED.arrow, compression="zstd") as writer, KeyedIndex(index) as captions:
            batch: list[Mapping[str, str | None]] = []
            for key in captions.keys_without(_known(target, keyed)):
                name, shard = split_key(key)
                batch.append({"key": name, "shard": shard})
                count += 1
                if len(batch) == _UNMATCHED_ROWS:
                    writer.write_table(pa.Table.from_pylist(batch, schema=UNMATCHED.arrow))
                    batch = []
            writer.write_table(pa.Table.from_pylist(batch, schema=UNMATCHED.arrow))
        file.finish()
        target.publish(temporary, UNMATCHED_FILE)
    finally:
        file.discard()
    return count


def _known(target: Target, keyed: KeyedBy) -> Iterator[str]:
    """Every sample of the dataset, as captions would name it."""
    dataset = open_dataset(target.url, CAPTIONS.kind)
    for schema, folder in ((CAPTIONS, ""), (REJECTS, REJECTS_DIR)):
        for table in dataset.tables(schema, columns=["key", "shard"], folder=folder):
            for row in table.to_pylist():
                yield keyed.of_sample(row["key"], row["shard"])


def _only_text(texts: Sequence[str], samples: int) -> str | Refusal:
    """The one text for a sample of whose name there are `samples` in its shard."""
    if not texts:
        return Refusal(RejectReason.NO_CAPTION, "no caption was published for it")
    if len(texts) > 1:
        return Refusal(RejectReason.AMBIGUOUS_CAPTION, f"{len(texts)} different captions were published for it")
    if samples > 1:
        return Refusal(
            RejectReason.AMBIGUOUS_CAPTION, f"{samples} samples of the shard have its name; match whole keys"
        )
    return texts[0]
