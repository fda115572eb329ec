"""The choice of the transformers engine: its settings, and its batches as a stream of answers."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from curation.captions.engine import Completion, Decoding, Engine, Request
from curation.captions.self_check import self_check
from curation.captions.transformers_engine import TransformersEngine
from curation.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class TransformersChoice:
    """`checkpoint` through transformers, in the worker's own process.

    `batch_size` and `device` are how, not what: they are not part of the identity. (In half precision another batch
    size can still change a near tie between two tokens; float32 is exact in practice.)
    """

    checkpoint: Checkpoint
    dtype: str
    device: str
    batch_size: int

    @property
    def identity(self) -> dict[str, Any]:
        """The checkpoint and its compute type."""
        return {"engine": "transformers", "model": self.checkpoint.identity, "dtype": self.dtype}

    def open(self, decoding: Decoding, prompt: str) -> Engine:
        """Load the model and check it on a few made-up pictures."""
        engine = TransformersEngine(self.checkpoint, dtype=self.dtype, device=self.device, decoding=decoding)
        self_check(engine, prompt)
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
