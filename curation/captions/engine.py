"""What a captioning engine is: requests with keys in, completions with the same keys out."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from PIL import Image

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How text is drawn from the model. Temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to caption. `seed` decides its sampling, whatever batch it lands in; -1 under greedy decoding."""

    key: str
    image: Image.Image
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """The engine's answer to the request of the same key.

    `text` is unaltered; where there is none, it is empty, finish_reason is `error`, and `error` says why in one line.
    """

    key: str
    text: str
    finish_reason: FinishReason
    n_prompt_tokens: int
    n_tokens: int
    mean_logprob: float | None
    error: str | None = None


class Engine(Protocol):
    """A captioner with its model loaded."""

    @property
    def wanted_px(self) -> int | None:
        """The side below which pictures need not be decoded for this model; None for full size."""

    @property
    def preparation(self) -> dict[str, Any]:
        """What is done to a picture and a prompt before the model sees them; part of the prompt's identity."""

    @property
    def note(self) -> str | None:
        """What the job's summary should say of how captions were made; None where there is nothing to say."""

    @property
    def ahead(self) -> int:
        """How many pictures to hold decoded, so that the engine need not wait for one."""

    def answers(self, requests: Iterable[Request]) -> Generator[Completion, None, None]:
        """One completion for each request, in order; takes requests ahead of the answers as far as it needs to.

        A request that fails alone is answered with `error`. An exception means that the fault is not a request's.
        Close the generator to leave early.
        """

    def close(self) -> None:
        """Give back the model."""


class EngineChoice(Protocol):
    """Which engine, and its settings: cheap to build and to send to the worker that opens it."""

    @property
    def identity(self) -> dict[str, Any]:
        """All of it that changes a caption; part of the stage's fingerprint."""

    def open(self, decoding: Decoding, prompt: str) -> Engine:
        """Load the model, and check on made-up pictures that it sees them. `prompt` is one that the job will ask."""
