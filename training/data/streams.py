"""The endless stream of each stratum: pass after pass over its samples, each pass in an order of its own.

Shuffled as a whole, the order of a pass is one `Bijection`. With a window, the rows of the dataset are cut into chunks
of neighbours, sixteen of them a window; the chunks are put in random order, and samples are shuffled within each
window. All strata of a dataset follow the same order of chunks, so what is read at about the same time lies in a few
places, whatever its bucket.
"""

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.bijection import Bijection
from training.data.population import Population, Stratum

CHUNKS: Final = 16  # of a window


class Streams:
    """The streams of all strata of `population`. `window` is in samples of a dataset, 0 for none."""

    def __init__(self, population: Population, seed: int, window: int) -> None:
        self._population, self._name = population, f"{population.digest}:{seed}"
        self._chunk = max(1, window // CHUNKS) if window else 0  # rows
        self._walks = lru_cache(maxsize=2 * len(population.starts))(self._walk)
        self._columns: dict[Stratum, int] = {}
        if window:
            self._starts = [self._chunk_starts(dataset) for dataset in range(len(population.starts) - 1)]

    def read(self, stratum: Stratum, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and visits of the places [start, stop) of the stream of `stratum`."""
        rows, visits = np.empty(stop - start, np.int64), np.empty(stop - start, np.int64)
        done = start
        while done < stop:
            visit, within = divmod(done, stratum.size)
            count = min(stop - done, stratum.size - within)
            part = slice(done - start, done - start + count)
            places = np.arange(within, within + count)
            found = self._windowed(stratum, visit, places) if self._chunk else self._shuffled(stratum, visit, places)
            rows[part], visits[part] = self._population.members[stratum.first + found], visit
            done += count
        return rows, visits

    def _shuffled(self, stratum: Stratum, visit: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return Bijection(self._label("samples", stratum, visit), stratum.size)(places)

    def _windowed(self, stratum: Stratum, visit: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which of the stratum's members are at `places`, consecutive ones, of its pass number `visit`."""
        order, before = self._walks(stratum.dataset, visit)
        column = self._columns[stratum]
        ends = np.ascontiguousarray(before[CHUNKS - 1 :: CHUNKS, column])
        found, done = np.empty_like(places), 0
        while done < len(places):
            window = int(np.searchsorted(ends, places[done], side="right"))
            head = before[window * CHUNKS - 1, column] if window else 0
            mine = before[window * CHUNKS : (window + 1) * CHUNKS, column]
            here = places[done : done + int(mine[-1] - places[done])]
            shuffle = Bijection(self._label(f"window:{window}", stratum, visit), int(mine[-1] - head))
            place = shuffle(here - head) + head
            chunk = np.searchsorted(mine, place, side="right")
            preceding = np.concatenate([[head], mine[:-1]])
            in_chunk = place - preceding[chunk]
            found[done : done + len(here)] = (
                self._starts[stratum.dataset][order[window * CHUNKS + chunk], column] + in_chunk
            )
            done += len(here)
        return found

    def _walk(self, dataset: int, visit: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The order of a dataset's chunks in a pass [C], and how many of each stratum its chunks have so far [C, S]."""
        counts = np.diff(self._starts[dataset], axis=0)
        order = Bijection(f"chunks:{self._name}:{dataset}:{visit}", len(counts))(np.arange(len(counts)))
        return order, np.cumsum(counts[order], axis=0, dtype=np.int32)

    def _chunk_starts(self, dataset: int) -> NDArray[np.int32]:
        """How many of each stratum of `dataset` come before each of its chunks: [C + 1, S]."""
        population = self._population
        start, stop = population.starts[dataset : dataset + 2]
        # Of the members' type: searching for another would copy them all.
        edges = np.append(np.arange(start, stop, self._chunk), stop).astype(np.int32)
        strata = [stratum for stratum in population.strata if stratum.dataset == dataset]
        out = np.empty((len(edges), len(strata)), np.int32)
        for column, stratum in enumerate(strata):
            self._columns[stratum] = column
            out[:, column] = np.searchsorted(population.members[stratum.first : stratum.first + stratum.size], edges)
        return out

    def _label(self, what: str, stratum: Stratum, visit: int) -> str:
        return f"{what}:{self._name}:{stratum.dataset}:{stratum.bucket}:{visit}"
