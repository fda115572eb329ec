"""The captioning stage: pictures of a shard in, one caption row a readable picture out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xxhash

from curation.captions.engine import Completion, Request
from curation.captions.prompts import Prompt
from curation.captions.quality import RULES_VERSION, clean, measure
from curation.captions.self_check import self_check
from curation.captions.transformers_engine import Decoding, TransformersEngine
from curation.checkpoints import Checkpoint
from curation.execution.clock import PhaseClock
from curation.execution.stage import StageSpec, Unit
from curation.images.decode import DECODE_VERSION, DecodePolicy
from curation.images.reading import DecodedSample, RefusedRow, decoded_samples
from curation.shards.fingerprint import digest_of
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.sources.base import Source
from schemas.dataset import table_path
from schemas.tables import CAPTIONS

_STAGE_VERSION = 1


@dataclass(frozen=True, slots=True)
class CaptionStage:
    """Captions `source`'s pictures with `checkpoint`.

    `batch_size`, `decode_threads` and `device` are how, not what: they are not part of the fingerprint. (In half
    precision another batch size can still change a near tie between two tokens; float32 is exact in practice.)
    """

    target: Target
    source: Source
    checkpoint: Checkpoint
    prompt: Prompt
    decoding: Decoding
    policy: DecodePolicy
    seed: int
    dtype: str
    device: str
    batch_size: int
    decode_threads: int
    t5_tokenizer: Checkpoint | None = None

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec(
            name="caption",
            version=_STAGE_VERSION,
            schema=CAPTIONS,
            config={
                "engine": "transformers",
                "model": self.checkpoint.identity,
                "prompt": self.prompt.template,
                "decoding": dataclasses.asdict(self.decoding),
                "seed": self.seed,
                "dtype": self.dtype,
                "source": {"name": self.source.name, "version": self.source.version},
                "decode": {**dataclasses.asdict(self.policy), "version": DECODE_VERSION},
                "rules_version": RULES_VERSION,
                "t5_tokenizer": self.t5_tokenizer.identity if self.t5_tokenizer else None,
            },
        )

    def open(self) -> "CaptionWorker":
        """Load the model and check it on a few made-up pictures."""
        engine = TransformersEngine(self.checkpoint, dtype=self.dtype, device=self.device, decoding=self.decoding)
        self_check(engine, self.prompt.text(None, None, {})[0])
        return CaptionWorker(self, engine, _load_tokenizer(self.t5_tokenizer))


class CaptionWorker:
    """A loaded captioner."""

    def __init__(self, stage: CaptionStage, engine: TransformersEngine, t5_tokenizer: Any) -> None:
        self._stage, self._engine, self._t5_tokenizer = stage, engine, t5_tokenizer
        self._prompt_id = digest_of([stage.prompt.template, engine.preparation])[:16]

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Caption the unit, batch by batch, in the order of the shard."""
        stage = self._stage
        sink = writer.table(table_path(unit.name), CAPTIONS)
        side = self._engine.wanted_px
        # Twice the model's side: scaled decoding to the side itself would cost the later resize its quality.
        at_least = (2 * side, 2 * side) if side else None
        samples = decoded_samples(
            stage.target,
            unit,
            stage.source,
            stage.policy,
            at_least=at_least,
            threads=stage.decode_threads,
            ahead=2 * stage.batch_size,
            clock=clock,
        )
        batch: list[DecodedSample] = []
        for sample in samples:
            if isinstance(sample, RefusedRow):
                writer.reject(sample.key, sample.reason, sample.detail)
                continue
            batch.append(sample)
            if len(batch) == stage.batch_size:
                self._caption(batch, unit, sink, writer, clock)
                batch = []
        self._caption(batch, unit, sink, writer, clock)

    def close(self) -> None:
        """Give back the model."""
        self._engine.close()

    def _caption(
        self, batch: Sequence[DecodedSample], unit: Unit, sink: Any, writer: UnitWriter, clock: PhaseClock
    ) -> None:
        requests, missing = [], []
        for read in batch:
            sample = read.sample
            text, lacking = self._stage.prompt.text(sample.caption, sample.label, sample.extra)
            requests.append(Request(read.key, read.decoded.image, text, self._seed(unit, read.key)))
            missing.append(lacking)
        with clock.phase("model"):
            completions = self._engine.complete(requests)
        with clock.phase("write"):
            for read, request, completion, lacking in zip(batch, requests, completions, missing, strict=True):
                if completion.key != read.key:
                    raise AssertionError(f"asked for {read.key!r}, the engine answered for {completion.key!r}")
                row = self._row(unit, read, request, completion, lacking)
                sink.write([row])
                writer.keep(read.key)
                writer.count(f"status {row['status']}")
            writer.count("tokens", sum(c.n_tokens for c in completions))

    def _row(
        self, unit: Unit, read: DecodedSample, request: Request, completion: Completion, lacking: tuple[str, ...]
    ) -> dict[str, Any]:
        cleaned = clean(completion.text, completion.finish_reason)
        flags = sorted({*cleaned.flags, *(f"no_{name}" for name in lacking)})
        t5 = len(self._t5_tokenizer(cleaned.text).input_ids) if self._t5_tokenizer and cleaned.text else None
        return {
            "key": read.key,
            "shard": unit.planned.shard,
            "width": read.decoded.original_width,
            "height": read.decoded.original_height,
            "raw_caption": read.sample.caption,
            "generated": completion.text,
            "caption": cleaned.text,
            "status": cleaned.status.value,
            "flags": flags,
            "finish_reason": completion.finish_reason,
            "n_prompt_tokens": completion.n_prompt_tokens,
            "n_tokens": completion.n_tokens,
            "n_t5_tokens": t5,
            **dataclasses.asdict(measure(completion.text)),
            "mean_logprob": completion.mean_logprob,
            "prompt_id": self._prompt_id,
            "rules_version": RULES_VERSION,
            "seed": request.seed,
        }

    def _seed(self, unit: Unit, key: str) -> int:
        """The sample's own seed: 63 bits of a hash of the run's seed, the shard and the key; -1 under greedy."""
        if self._stage.decoding.temperature == 0:
            return -1
        return xxhash.xxh64_intdigest(f"{unit.planned.shard}\0{key}".encode(), seed=self._stage.seed & (2**64 - 1)) >> 1


def _load_tokenizer(checkpoint: Checkpoint | None) -> Any:
    if checkpoint is None:
        return None
    from transformers import AutoTokenizer

    where = {"revision": checkpoint.revision} if checkpoint.revision else {}
    return AutoTokenizer.from_pretrained(checkpoint.source, **where)
