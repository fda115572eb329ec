"""Pictures with their colours exchanged, so that shapes are not known by the colours that they have in training."""

import itertools
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from curation.demo.llava.pictures import IGNORED, QUESTIONS, Bytes
from curation.scenes.vocabulary import GROUND_NOUNS, NOUNS

Flags: TypeAlias = npt.NDArray[np.bool_]

_EXCHANGES: Final = [
    (order, turned)
    for order in itertools.permutations(range(3))
    for turned in (False, True)
    if (order, turned) != ((0, 1, 2), False)
]
_PLAIN: Final = [len(NOUNS) + list(GROUND_NOUNS).index(kind) for kind in ("plain", "gradient")]
_OF_COLOUR: Final = [list(QUESTIONS).index(name) for name in ("colour", "lower colour")]


def has_plain_ground(labels: Bytes) -> Flags:
    """[B]: which pictures have a ground that stays true whatever its colours; a meadow does not. `labels` is
    [B, questions, patches]."""
    return np.asarray(np.isin(labels[:, 0], _PLAIN).any(axis=1))


def recoloured(pixels: Bytes, changed: Flags, random: np.random.Generator) -> Bytes:
    """[B, H, W, 3] in which changed pictures have red, green and blue exchanged, or the negative of that."""
    result = np.array(pixels)
    for row in np.nonzero(changed)[0]:
        order, turned = _EXCHANGES[int(random.integers(len(_EXCHANGES)))]
        exchanged = result[row][..., list(order)]
        result[row] = 255 - exchanged if turned else exchanged
    return result


def without_colours(labels: Bytes, changed: Flags) -> Any:
    """Labels [B, questions, patches] that ask no colour of changed pictures; their padding is no longer grey either."""
    result = np.array(labels)
    for question in _OF_COLOUR:
        result[changed, question] = IGNORED
    nouns = result[:, 0]
    nouns[changed[:, None] & (nouns == QUESTIONS["noun"] - 1)] = IGNORED
    return result
