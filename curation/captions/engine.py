"""What a captioning engine is: requests with keys in, completions with the same keys out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image

FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to caption. `seed` decides its sampling, whatever batch it lands in; -1 under greedy decoding."""

    key: str
    image: Image.Image
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Completion:
    """The engine's answer to the request of the same key. `text` is unaltered; empty with finish_reason `error`."""

    key: str
    text: str
    finish_reason: FinishReason
    n_prompt_tokens: int
    n_tokens: int
    mean_logprob: float | None


class Engine(Protocol):
    """A captioner with its model loaded."""

    @property
    def wanted_px(self) -> int | None:
        """The side below which pictures need not be decoded for this model; None for full size."""

    def complete(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """One completion for each request, in order. A request that fails alone is answered with `error`."""

    def close(self) -> None:
        """Give back the model."""
