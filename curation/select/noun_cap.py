"""Choosing samples so that frequent nouns weigh less, by the two rules that well-known data sets were made with.

llava: LLaVA's CC3M-595K (Liu et al. 2023). Nouns in fewer than `skip_below` captions are left aside (there 3). Of each
    other noun all captions are taken, or `cap` random ones where it has more (there 100). What any noun took is kept.
    (The paper goes from the rarest noun up, which makes no difference to what is kept in the end.)
metaclip: MetaCLIP's balancing (Xu et al. 2024). Each noun of a caption gives it a chance of min(1, cap / count), drawn
    independently; one success keeps it. So keeping has a chance of 1 - Π(1 - min(1, cap / count)). There `cap` is
    20,000 for 400M pairs.

Counts are of captions that have the noun, among the samples that are left at this place of the recipe. A sample without
a noun is not kept. Random is what a hash of (seed, shard, key) and the noun says: the same in every run, whatever the
order of rows, and for a sample whatever others there are.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from curation.select.join import WordLists
from curation.select.recipe import NounCap

_Bools = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]
_Words = npt.NDArray[np.int32]
_Hashes = npt.NDArray[np.uint64]
_Floats = npt.NDArray[np.float64]

_SLACK: Final = 6.0
"""Standard deviations above `cap` to which candidates of a noun are collected; fewer than `cap` are then a rarity."""


def keep_under_cap(lists: WordLists, rule: NounCap, ids: Any, alive: _Bools) -> _Bools:
    """Which of the `alive` samples [N] `rule` keeps. `ids` [N] are the strings that name the samples.

    Besides 4 bytes a noun of a caption, memory is bounded by `cap` for each distinct noun.
    """
    counts = noun_counts(lists, alive)
    counts[counts < rule.skip_below] = 0
    draws = _Draws(lists, alive, _sample_hashes(ids, alive, rule.seed), _hashes(lists.words))
    kept = np.zeros(len(alive), np.bool_)
    kept[_metaclip(draws, counts, rule.cap) if rule.rule == "metaclip" else _llava(draws, counts, rule.cap)] = True
    return kept


def noun_counts(lists: WordLists, chosen: _Bools) -> _Ints:
    """In how many of the `chosen` samples each word is, [words]."""
    counts = np.zeros(len(lists.words), np.int64)
    for _, words in _occurrences(lists, chosen):
        counts += np.bincount(words, minlength=len(counts))
    return counts


class _Draws:
    """A random number in [0, 1) for each word of each sample."""

    def __init__(self, lists: WordLists, alive: _Bools, samples: _Hashes, words: _Hashes) -> None:
        self._lists, self._alive, self._samples, self._words = lists, alive, samples, words

    def below(self, bounds: _Floats) -> Iterator[tuple[_Ints, _Words, _Floats]]:
        """Samples, words and numbers of what lies below the bound of the word, part by part."""
        for samples, words in _occurrences(self._lists, self._alive):
            numbers = _uniform(self._samples[samples] ^ self._words[words])
            taken = numbers < bounds[words]
            yield samples[taken], words[taken], numbers[taken]


def _metaclip(draws: _Draws, counts: _Ints, cap: int) -> _Ints:
    chances = np.where(counts > 0, cap / np.maximum(counts, 1), 0.0)
    return np.concatenate([np.empty(0, np.int64), *(samples for samples, _, _ in draws.below(chances))])


def _llava(draws: _Draws, counts: _Ints, cap: int) -> _Ints:
    """The samples of the `cap` smallest numbers of each word."""
    bounds = np.where(counts > 0, (cap + _SLACK * np.sqrt(cap)) / np.maximum(counts, 1), 0.0)
    while True:
        parts = [(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0)), *draws.below(bounds)]
        samples, words, numbers = (np.concatenate(column) for column in zip(*parts, strict=True))
        short = np.bincount(words, minlength=len(counts)) < np.minimum(counts, cap)
        if not short.any():
            break
        bounds[short] = 1.0
    order = np.lexsort((samples, numbers, words))
    ordered = words[order]
    place = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return samples[order][place < cap]


def _occurrences(lists: WordLists, chosen: _Bools) -> Iterator[tuple[_Ints, _Words]]:
    """Sample and word of each occurrence in the `chosen` samples, part by part."""
    for rows, lengths, words in lists.parts:
        samples = np.repeat(rows, lengths)
        here = (samples >= 0) & chosen[samples]
        yield samples[here], words[here]


def _sample_hashes(ids: Any, alive: _Bools, seed: int) -> _Hashes:
    """xxh64 of each id under `seed`; 0 where the sample is not alive."""
    hashes = np.zeros(len(alive), np.uint64)
    names = ids.filter(alive).to_pylist()
    hashes[alive] = np.fromiter((xxhash.xxh64_intdigest(name.encode(), seed) for name in names), np.uint64, len(names))
    return hashes


def _hashes(words: tuple[str, ...]) -> _Hashes:
    return np.fromiter((xxhash.xxh64_intdigest(word.encode()) for word in words), np.uint64, len(words))


def _uniform(hashes: _Hashes) -> _Floats:
    """[0, 1) from the upper 53 bits of the SplitMix64 finaliser (Steele et al. 2014) of each hash."""
    mixed = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
