"""The captioning stage: pictures of a shard in, one caption row a readable picture out."""

import dataclasses
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import xxhash

from curation.captions.canary import Canary
from curation.captions.engine import Completion, Decoding, Engine, EngineChoice, Request
from curation.captions.prompts import Prompt
from curation.captions.quality import RULES_VERSION, clean, measure
from curation.captions.t5_counter import t5_counter
from curation.checkpoints import Checkpoint
from curation.execution.clock import PhaseClock
from curation.execution.stage import StageSpec, Unit
from curation.images.decode import DECODE_VERSION, DecodePolicy
from curation.images.reading import RefusedRow, decoded_samples
from curation.shards.fingerprint import digest_of
from curation.shards.target import Target
from curation.shards.unit_writer import UnitWriter
from curation.sources.base import Source
from schemas.dataset import table_path
from schemas.tables import CAPTIONS

_STAGE_VERSION = 1


@dataclass(frozen=True, slots=True)
class CaptionStage:
    """Captions `source`'s pictures with the engine of `choice`.

    `decode_threads` is not part of the fingerprint, and neither is `canary_rows`: how many captions each worker makes
    before it judges them (curation.captions.canary), 0 for none.
    """

    target: Target
    source: Source
    choice: EngineChoice
    prompt: Prompt
    decoding: Decoding
    policy: DecodePolicy
    seed: int
    decode_threads: int
    t5_tokenizer: Checkpoint | None = None
    canary_rows: int = 0

    @property
    def spec(self) -> StageSpec:
        """Who this stage is."""
        return StageSpec(
            name="caption",
            version=_STAGE_VERSION,
            schema=CAPTIONS,
            config={
                **self.choice.identity,
                "prompt": self.prompt.template,
                "decoding": dataclasses.asdict(self.decoding),
                "seed": self.seed,
                "source": {"name": self.source.name, "version": self.source.version},
                "decode": {**dataclasses.asdict(self.policy), "version": DECODE_VERSION},
                "rules_version": RULES_VERSION,
                "t5_tokenizer": self.t5_tokenizer.identity if self.t5_tokenizer else None,
            },
        )

    def open(self) -> "CaptionWorker":
        """Open the engine, which checks itself on a few made-up pictures."""
        engine = self.choice.open(self.decoding, self.prompt.text(None, None, {})[0])
        return CaptionWorker(self, engine, t5_counter(self.t5_tokenizer))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the row of a request under way needs; its picture is the engine's to keep or let go."""

    key: str
    raw_caption: str | None
    width: int
    height: int
    lacking: tuple[str, ...]
    seed: int


class CaptionWorker:
    """A loaded captioner."""

    def __init__(self, stage: CaptionStage, engine: Engine, t5_tokens: Callable[[str], int] | None) -> None:
        self._stage, self._engine, self._t5_tokens = stage, engine, t5_tokens
        self._canary = Canary(stage.canary_rows, stage.target, stage.spec.fingerprint)
        self._prompt_id = digest_of([stage.prompt.template, engine.preparation])[:16]

    @property
    def ahead(self) -> int:
        """How many pictures the engine holds ready at a time."""
        return self._engine.ahead

    def process(self, unit: Unit, writer: UnitWriter, clock: PhaseClock) -> None:
        """Caption the unit. The engine takes requests as far ahead as it likes; rows are in the order of the shard."""
        sink = writer.table(table_path(unit.name), CAPTIONS)
        asked: deque[_Asked] = deque()
        with (
            closing(self._requests(unit, asked, writer, clock)) as requests,
            closing(self._engine.answers(requests)) as answers,
        ):
            while True:
                with clock.phase("model"):
                    completion = next(answers, None)
                if completion is None:
                    break
                with clock.phase("write"):
                    row = self._row(unit, asked.popleft(), completion)
                    self._canary.see(row)
                    sink.write([row])
                    writer.keep(row["key"])
                    writer.count(f"status {row['status']}")
                    writer.count("tokens", completion.n_tokens)
                    if self._engine.note:
                        writer.count(self._engine.note)

    def close(self) -> None:
        """Give back the model."""
        self._engine.close()

    def _requests(
        self, unit: Unit, asked: deque[_Asked], writer: UnitWriter, clock: PhaseClock
    ) -> Generator[Request, None, None]:
        """The unit's requests in order, each with its entry in `asked`; refuses the rows that have no picture."""
        stage = self._stage
        side = self._engine.wanted_px
        samples = decoded_samples(
            stage.target,
            unit,
            stage.source,
            stage.policy,
            # Twice the model's side: scaled decoding to the side itself would cost the later resize its quality.
            at_least=(2 * side, 2 * side) if side else None,
            threads=stage.decode_threads,
            ahead=self._engine.ahead,
            clock=clock,
        )
        with closing(samples):
            for read in samples:
                if isinstance(read, RefusedRow):
                    writer.reject(read.key, read.reason, read.detail)
                    continue
                sample, decoded = read.sample, read.decoded
                text, lacking = stage.prompt.text(sample.caption, sample.label, sample.extra)
                seed = self._seed(unit, read.key)
                asked.append(
                    _Asked(read.key, sample.caption, decoded.original_width, decoded.original_height, lacking, seed)
                )
                yield Request(read.key, decoded.image, text, seed)

    def _row(self, unit: Unit, asked: _Asked, completion: Completion) -> dict[str, Any]:
        if completion.key != asked.key:
            raise AssertionError(f"asked for {asked.key!r}, the engine answered for {completion.key!r}")
        cleaned = clean(
            completion.text,
            completion.finish_reason,
            prompt=self._stage.prompt.template,
            mean_logprob=completion.mean_logprob,
            t5_tokens=self._t5_tokens,
        )
        flags = sorted({*cleaned.flags, *(f"no_{name}" for name in asked.lacking)})
        return {
            "key": asked.key,
            "shard": unit.planned.shard,
            "width": asked.width,
            "height": asked.height,
            "raw_caption": asked.raw_caption,
            "generated": completion.text,
            "caption": cleaned.text,
            "status": cleaned.status.value,
            "flags": flags,
            "finish_reason": completion.finish_reason,
            "error": completion.error,
            "n_prompt_tokens": completion.n_prompt_tokens,
            "n_tokens": completion.n_tokens,
            "n_t5_tokens": cleaned.n_t5_tokens,
            **dataclasses.asdict(measure(completion.text)),
            "mean_logprob": completion.mean_logprob,
            "prompt_id": self._prompt_id,
            "rules_version": RULES_VERSION,
            "seed": asked.seed,
        }

    def _seed(self, unit: Unit, key: str) -> int:
        """The sample's own seed: 63 bits of a hash of the run's seed, the shard and the key; -1 under greedy."""
        if self._stage.decoding.temperature == 0:
            return -1
        return xxhash.xxh64_intdigest(f"{unit.planned.shard}\0{key}".encode(), seed=self._stage.seed & (2**64 - 1)) >> 1
