"""How nouns are spread over captions: for seeing what a cap did to them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curation.select.join import WordLists
from curation.select.noun_cap import noun_counts

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_TOP = 10


@dataclass(frozen=True, slots=True)
class NounDistribution:
    """Of the captions of some samples. Counts are of captions that have the noun.

    `mentions` is the sum of counts, `entropy_bits` of their shares, `top_share` of the ten most frequent nouns among
    all mentions, `under_cap` of distinct nouns whose count is at most the cap, `quantiles` of counts over nouns.
    """

    samples: int
    distinct: int
    mentions: int
    entropy_bits: float
    top_share: float
    under_cap: float
    quantiles: dict[str, int]
    top: tuple[tuple[str, int], ...]


def noun_distribution(lists: WordLists, chosen: npt.NDArray[np.bool_], cap: int) -> NounDistribution:
    """The distribution over the `chosen` samples [N]."""
    every = noun_counts(lists, chosen)
    counts = np.sort(every[every > 0])
    mentions = int(counts.sum())
    shares = counts / max(mentions, 1)
    names = sorted(np.flatnonzero(every), key=lambda word: (-every[word], lists.words[word]))[:_TOP]
    # The smallest count that so many of the nouns do not exceed.
    places = {q: max(0, int(np.ceil(q * len(counts))) - 1) for q in _QUANTILES}
    return NounDistribution(
        samples=int(chosen.sum()),
        distinct=len(counts),
        mentions=mentions,
        entropy_bits=round(float(-(shares * np.log2(shares)).sum()) if mentions else 0.0, 6),
        top_share=round(float(shares[-_TOP:].sum()), 6),
        under_cap=round(float((counts <= cap).mean()) if len(counts) else 0.0, 6),
        quantiles={f"{q:.0%}": int(counts[place]) if len(counts) else 0 for q, place in places.items()},
        top=tuple((lists.words[word], int(every[word])) for word in names),
    )
