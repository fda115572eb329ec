"""How full batches get: each use of a sample weighs something, and a batch ends where the sum passes its limit.

Counted in samples a use weighs 1 and everything is arithmetic. Counted in tokens it weighs the tokens of its latents
and of the longest of its captions, so the sum holds whichever caption is drawn; sums over parts of a pass are then
taken from the streams, once an epoch and bucket.
"""

from functools import lru_cache, reduce
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from training.data.clock import Clock
from training.data.policy import Policy
from training.data.population import Population, Stratum
from training.data.streams import Streams

_PIECE = 1 << 18  # uses looked at together


class Measure(Protocol):
    """Weighs uses. Batch i of bucket b has those before which [i * limit(b), (i + 1) * limit(b)) has been weighed."""

    def limit(self, bucket: int) -> int:
        """Weight from one batch of `bucket` to the next."""

    def before(self, bucket: int, block: int) -> int:
        """Weight of all uses in the stream of `bucket` before `block`."""

    def weigh(self, bucket: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The weight of one use of each row [N]."""

    def an_epoch(self, bucket: int) -> float:
        """Weight of an average epoch of `bucket`."""

    def sizes(self, bucket: int) -> tuple[int, int]:
        """The least and the most samples that a batch of `bucket` can have."""


class Samples:
    """Batches of a fixed number of samples."""

    def __init__(self, clock: Clock, global_batch: int) -> None:
        self._clock, self._size = clock, global_batch

    def limit(self, bucket: int) -> int:
        """See `Measure`."""
        return self._size

    def before(self, bucket: int, block: int) -> int:
        """See `Measure`."""
        return sum(self._clock.uses(stratum, block) for stratum in self._clock.strata[bucket])

    def weigh(self, bucket: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Measure`."""
        return np.ones(len(rows), np.int64)

    def an_epoch(self, bucket: int) -> float:
        """See `Measure`."""
        return float(sum(self._clock.weight(stratum) * stratum.size for stratum in self._clock.strata[bucket]))

    def sizes(self, bucket: int) -> tuple[int, int]:
        """See `Measure`."""
        return self._size, self._size


class Tokens:
    """Batches of at most `policy.tokens_per_batch` tokens.

    The uses of a batch begin within T - c + 1 tokens, where T is the budget and c the weight of the bucket's longest
    sample: so none is ever over T, and on average they are c - 1 below.
    """

    def __init__(self, population: Population, streams: Streams, clock: Clock, policy: Policy) -> None:
        """Raises `UserError` if two of the longest samples would not fit into a batch, or no text is counted."""
        self._population, self._streams, self._clock = population, streams, clock
        self._floor = population.null_tokens if policy.caption_drop else 1
        patch = policy.latent_patch if policy.tokens_counted == "all" else 0
        if not patch and not population.tokens.shape[1]:
            raise UserError("--tokens-counted text, but there is no text. Use --tokens-counted all.")
        self._latent = [(h // patch) * (w // patch) if patch else 0 for h, w in population.latent_cells]
        self._totals: dict[Stratum, int] = {}
        self._range: dict[int, tuple[int, int]] = {}
        for bucket, strata in clock.strata.items():
            sums = [self._sums(stratum) for stratum in strata]
            self._totals.update((s, total) for s, (total, _, _) in zip(strata, sums, strict=True))
            self._range[bucket] = min(low for _, low, _ in sums), max(high for _, _, high in sums)
        longest = max(high for _, high in self._range.values())
        self._budget = policy.tokens_per_batch
        if self._budget < 2 * longest:
            raise UserError(
                f"--tokens-per-batch {self._budget} is too small: the longest sample has {longest} tokens. Use at "
                f"least {2 * longest}."
            )
        self._tables = lru_cache(maxsize=4 * len(clock.strata))(self._table)
        self._starts = lru_cache(maxsize=8 * len(population.strata))(self._stream_weight)

    def limit(self, bucket: int) -> int:
        """See `Measure`."""
        return self._budget - self._range[bucket][1] + 1

    def before(self, bucket: int, block: int) -> int:
        """See `Measure`."""
        epoch, within = divmod(block, self._clock.blocks)
        if not within:
            strata = self._clock.strata[bucket]
            return sum(self._starts(stratum, self._clock.uses(stratum, block)) for stratum in strata)
        return int(self._tables(bucket, epoch)[within])

    def weigh(self, bucket: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `Measure`."""
        tokens = self._population.tokens
        if not tokens.shape[1]:
            return np.full(len(rows), self._latent[bucket], np.int64)
        # One column after the other: over an axis this short, numpy's own maximum is many times slower.
        text = reduce(np.maximum, (tokens[rows, variant] for variant in range(tokens.shape[1])))
        return np.maximum(text, self._floor).astype(np.int64) + self._latent[bucket]

    def an_epoch(self, bucket: int) -> float:
        """See `Measure`."""
        return float(sum(self._clock.weight(s) * self._totals[s] for s in self._clock.strata[bucket]))

    def sizes(self, bucket: int) -> tuple[int, int]:
        """See `Measure`."""
        least, most = self._range[bucket]
        return self.limit(bucket) // most, self._budget // least

    def _sums(self, stratum: Stratum) -> tuple[int, int, int]:
        """The sum, least and most of the weights of a stratum's samples."""
        total, least, most = 0, 1 << 62, 0
        for start in range(stratum.first, stratum.first + stratum.size, _PIECE):
            rows = self._population.members[start : min(start + _PIECE, stratum.first + stratum.size)]
            weights = self.weigh(stratum.bucket, rows.astype(np.int64))
            total, least, most = (
                total + int(weights.sum()),
                min(least, int(weights.min())),
                max(most, int(weights.max())),
            )
        return total, least, most

    def _stream_weight(self, stratum: Stratum, uses: int) -> int:
        """The weight of the first `uses` places of a stratum's stream."""
        passes, rest = divmod(uses, stratum.size)
        return passes * self._totals[stratum] + int(self._running(stratum, passes * stratum.size, [0, rest])[-1])

    def _table(self, bucket: int, epoch: int) -> NDArray[np.int64]:
        """The weight in the stream of `bucket` before each block of `epoch` [blocks]."""
        first = epoch * self._clock.blocks
        out = np.full(self._clock.blocks, self.before(bucket, first), np.int64)
        for stratum in self._clock.strata[bucket]:
            start = self._clock.uses(stratum, first)
            marks = [self._clock.uses(stratum, first + within) - start for within in range(self._clock.blocks)]
            out += self._running(stratum, start, marks)
        return out

    def _running(self, stratum: Stratum, start: int, marks: list[int]) -> NDArray[np.int64]:
        """The weight of the places of a stream from `start` to `start` + each of `marks`, which ascend from 0."""
        out, at = np.zeros(len(marks), np.int64), np.array(marks)
        weight = 0
        for done in range(0, marks[-1], _PIECE):
            upto = min(done + _PIECE, marks[-1])
            rows, _ = self._streams.read(stratum, start + done, start + upto)
            running = np.concatenate([[0], np.cumsum(self.weigh(stratum.bucket, rows))]) + weight
            here = (at > done) & (at <= upto)
            out[here] = running[at[here] - done]
            weight = int(running[-1])
        return out
