"""The choice of the transformers engine: its settings, and its batches as a stream of answers."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from curation.captions.continuous import ContinuousEngine, keeps_plain_past
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
            return ContinuousEngine(engine, self.batch_size, "inductor" if self.compile_steps else None)
        if self.compile_steps:
            raise UserError(
                f"{self.checkpoint.source}: a {engine.model.config.model_type}, whose steps cannot be compiled here. "
                f"Leave out --compile."
            )
        return BatchedEngine(engine, self.batch_size)


class BatchedEngine:
    """A `TransformersEngine`, batch after batch in the order of the requests."""

    def __init__(self, engine: TransformersEngine, batch_size: int) -> None:
        self._engine, self._batch_size = engine, batch_size

    @property
    def wanted_px(self) -> int | None:
        """The model's input side."""
        return self._engine.wanted_px

    @property
    def preparation(self) -> dict[str, Any]:
        """What is done to a picture and a prompt before the model sees them."""
        return self._engine.preparation

    @property
    def ahead(self) -> int:
        """Two batches."""
        return 2 * self._batch_size

    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """One completion for each request, in order, a batch at a time."""
        source = iter(requests)
        while batch := list(islice(source, self._batch_size)):
            yield from self._engine.complete(batch)

    def close(self) -> None:
        """Give back the model."""
        self._engine.close()
