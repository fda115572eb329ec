"""Choosing tokens so that a sample's text depends on the sample alone: not on its batch or its worker.

`generate` draws all rows of a batch from one generator, so a row's text changes with its neighbours. Here the choice is
made inside a logits processor by inverting the cumulative distribution at a number that is a pure function of
(sample seed, step); the outer search is then plain greedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessor

Integers: TypeAlias = NDArray[np.int64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def uniform(seeds: NDArray[np.uint64], steps: Integers) -> NDArray[np.float64]:
    """One number in [0, 1) for each seed and its step, by splitmix64 (53 bits)."""
    with np.errstate(over="ignore"):
        x = seeds + _GOLDEN * (steps.astype(np.uint64) + np.uint64(1))
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True, slots=True)
class TokenRule:
    """How the next token of a row is chosen. Temperature 0 is greedy. Otherwise the distribution is
    softmax(scores / temperature), cut to the smallest set of tokens whose probability reaches `top_p`."""

    temperature: float
    top_p: float

    def choose(self, scores: Tensor, seeds: Integers, steps: Integers) -> tuple[Tensor, Tensor]:
        """The token of each row, [B], and its log-probability under the model (before temperature), [B].

        `scores` is [B, V]; `seeds` and `steps` [B] are each row's own.
        """
        chosen = scores.argmax(-1, keepdim=True) if self.temperature == 0 else self._draw(scores, seeds, steps)
        logprobs = torch.log_softmax(scores.float(), dim=-1)
        return chosen.squeeze(1), logprobs.gather(1, chosen).squeeze(1)

    def _draw(self, scores: Tensor, seeds: Integers, steps: Integers) -> Tensor:
        probabilities, order = torch.softmax(scores.double() / self.temperature, dim=-1).sort(-1, descending=True)
        mass = probabilities.cumsum(-1)
        # A token stays if the mass before it is below top_p, so the first always stays.
        kept = probabilities.masked_fill(mass - probabilities >= self.top_p, 0.0)
        cumulative = kept.cumsum(-1)
        numbers = torch.from_numpy(uniform(seeds.astype(np.uint64), steps)).to(scores.device)
        level = (numbers * cumulative[:, -1]).unsqueeze(1)
        # Rounding must not push the draw past the last token that was kept.
        last = (kept > 0).sum(-1, keepdim=True) - 1
        place = torch.minimum((cumulative <= level).sum(-1, keepdim=True), last)
        return order.gather(1, place)


class TokenChooser(LogitsProcessor):
    """`TokenRule` inside `generate`: leaves only the chosen token possible, and remembers its log-probability."""

    def __init__(self, seeds: Sequence[int], rule: TokenRule) -> None:
        self._seeds, self._rule = np.asarray(seeds, dtype=np.int64), rule
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` [B, V] in; minus infinity everywhere but at the chosen token out."""
        steps = np.full(len(self._seeds), len(self.logprobs), np.int64)
        chosen, logprob = self._rule.choose(scores, self._seeds, steps)
        self.logprobs.append(logprob)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)
