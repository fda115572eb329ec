"""The choice of the transformers engine: its settings, and its batches as a stream of answers."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from curation.captions.continuous import ContinuousBatches, keeps_plain_past
from curation.captions.engine import Completion, Decoding, Engine, Request
from curation.captions.self_check import made_up_requests, self_check
from curation.captions.transformers_engine import TransformersEngine
from curation.checkpoints import Checkpoint
from schemas.errors import UserError


@dataclass(frozen=True, slots=True)
class TransformersChoice:
    """`checkpoint` through transformers, in the worker's own process.

    `batch_size`, `device` and `compile_steps` (of a whole batch, for CUDA) are how, not what: they are not part of the
    identity. They move the last bits of log-probabilities, which in half precision can decide a near tie between two
    tokens; in float32 the text is the same in practice.
    """

    checkpoint: Checkpoint
    dtype: str
    device: str
    batch_size: int
    compile_steps: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """The checkpoint and its compute type."""
        return {"engine": "transformers", "model": self.checkpoint.identity, "dtype": self.dtype}

    def open(self, decoding: Decoding, prompt: str) -> Engine:
        """Load the model and check it on a few made-up pictures. Rows come and go where the model allows it."""
        engine = TransformersEngine(self.checkpoint, dtype=self.dtype, device=self.device, decoding=decoding)
        self_check(engine, prompt)
        if keeps_plain_past(engine, made_up_requests(prompt)[0]):
            backend = "inductor" if self.compile_steps else None
            return LocalEngine(engine, ContinuousBatches(engine, self.batch_size, backend))
        if self.compile_steps:
            raise UserError(
                f"{self.checkpoint.source}: a {engine.model.config.model_type}, whose steps cannot be compiled here. "
                f"Leave out --compile."
            )
        return LocalEngine(engine, WholeBatches(engine, self.batch_size))


class Batches(Protocol):
    """How requests are put together for a model that takes several at once; the two parts of `Engine` that depend on
    it."""

    @property
    def ahead(self) -> int: ...
    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]: ...


class WholeBatches:
    """Asks a `TransformersEngine` batch after batch."""

    def __init__(self, engine: TransformersEngine, size: int) -> None:
        self._engine, self._size = engine, size

    @property
    def ahead(self) -> int:
        """Two batches."""
        return 2 * self._size

    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """One completion for each request, in order."""
        source = iter(requests)
        while batch := list(islice(source, self._size)):
            yield from self._engine.complete(batch)


class LocalEngine:
    """A `TransformersEngine` as the stage takes it: with the batches that its model allows."""

    def __init__(self, engine: TransformersEngine, batches: Batches) -> None:
        self._engine = engine
        self.wanted_px, self.preparation, self.ahead = engine.wanted_px, engine.preparation, batches.ahead
        self.answers, self.close = batches.answers, engine.close
