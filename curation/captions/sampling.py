"""Choosing tokens so that a sample's text depends on the sample alone: not on its batch or its worker.

`generate` draws all rows of a batch from one generator, so a row's text changes with its neighbours. Here the choice is
made inside a logits processor by inverting the cumulative distribution at a number that is a pure function of
(sample seed, step); the outer search is then plain greedy.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def uniform(seeds: "np.ndarray[Any, np.dtype[np.uint64]]", step: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """One number in [0, 1) a seed at `step`, by splitmix64 (53 bits)."""
    with np.errstate(over="ignore"):
        x = seeds + _GOLDEN * np.uint64(step + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


class TokenChooser(LogitsProcessor):
    """Chooses the next token of each row and remembers its log-probability under the model (before temperature).

    Temperature 0 is greedy. Otherwise the distribution is softmax(scores / temperature), cut to the smallest set of
    tokens whose probability reaches `top_p`.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        self._seeds = np.asarray(seeds, dtype=np.int64).astype(np.uint64)
        self._temperature, self._top_p = temperature, top_p
        self._step = 0
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` [B, V] in; the same under greedy, else minus infinity everywhere but at the chosen token."""
        logprobs = torch.log_softmax(scores.float(), dim=-1)
        chosen = scores.argmax(-1, keepdim=True) if self._temperature == 0 else self._draw(scores)
        self.logprobs.append(logprobs.gather(1, chosen).squeeze(1))
        self._step += 1
        if self._temperature == 0:
            return scores
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)

    def _draw(self, scores: Tensor) -> Tensor:
        probabilities, order = torch.softmax(scores.double() / self._temperature, dim=-1).sort(-1, descending=True)
        mass = probabilities.cumsum(-1)
        # A token stays if the mass before it is below top_p, so the first always stays.
        kept = probabilities.masked_fill(mass - probabilities >= self._top_p, 0.0)
        cumulative = kept.cumsum(-1)
        numbers = torch.from_numpy(uniform(self._seeds, self._step)).to(scores.device)
        level = (numbers * cumulative[:, -1]).unsqueeze(1)
        # Rounding must not push the draw past the last token that was kept.
        last = (kept > 0).sum(-1, keepdim=True) - 1
        place = torch.minimum((cumulative <= level).sum(-1, keepdim=True), last)
        return order.gather(1, place)
