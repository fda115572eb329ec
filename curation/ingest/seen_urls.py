"""Which URLs have come before, for as many as fit at eight bytes each."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]


def hash_urls(urls: Sequence[str]) -> Hashes:
    """The xxh64 of each URL. Among 100 million URLs the chance that any two share one is 0.03 %."""
    return np.fromiter((xxhash.xxh64_intdigest(url.encode()) for url in urls), np.uint64, len(urls))


class SeenUrls:
    """A set of hashes that grows by whole batches. Sorted runs are merged so that there are few of them."""

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    def add(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Add a batch; for each of it whether it came for the first time."""
        batch, first = np.unique(hashes, return_index=True)
        fresh = np.zeros(len(hashes), bool)
        fresh[first[~self._has(batch)]] = True
        self._runs.append(np.sort(hashes[fresh]))
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            last = self._runs.pop()
            self._runs[-1] = np.sort(np.concatenate([self._runs[-1], last]), kind="stable")  # merges sorted runs
        return fresh

    def _has(self, batch: Hashes) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(batch), bool)
        for run in self._runs:
            if len(run):
                place = np.minimum(np.searchsorted(run, batch), len(run) - 1)
                found |= run[place] == batch
        return found
