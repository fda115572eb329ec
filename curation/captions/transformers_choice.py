"""The choice of the transformers engine: its settings, and its batches as a stream of answers."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from curation.captions.continuous import ContinuousBatches
from curation.captions.decode_step import why_not
from curation.captions.engine import Completion, Decoding, Engine, Request
from curation.captions.self_check import self_check, step_differs
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
        """Load the model and check it on a few made-up pictures.

        Rows come and go where the model can be stepped by `DecodeStep` and is seen to give the library's own scores;
        where not, batches are whole, and the job's summary says why. Raises `UserError` if they were to be compiled.
        """
        engine = TransformersEngine(self.checkpoint, dtype=self.dtype, device=self.device, decoding=decoding)
        self_check(engine, prompt)
        reason = why_not(engine.model) or step_differs(engine, prompt)
        if reason is None:
            return LocalEngine(
                engine, ContinuousBatches(engine, self.batch_size, "inductor" if self.compile_steps else None)
            )
        if self.compile_steps:
            raise UserError(
                f"{self.checkpoint.source}: its steps cannot be compiled here, since {reason}. Leave out --compile."
            )
        return LocalEngine(engine, WholeBatches(engine, self.batch_size, f"in whole batches: {reason}"))


class Batches(Protocol):
    """How requests are put together for a model that takes several at once; the parts of `Engine` that depend on it."""

    @property
    def note(self) -> str | None: ...
    @property
    def ahead(self) -> int: ...
    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]: ...


class WholeBatches:
    """Asks a `TransformersEngine` batch after batch; `note` says why."""

    def __init__(self, engine: TransformersEngine, size: int, note: str | None = None) -> None:
        self._engine, self._size, self.note = engine, size, note

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
        self.note, self.answers, self.close = batches.note, batches.answers, engine.close
