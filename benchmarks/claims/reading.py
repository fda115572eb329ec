"""What a drawn picture of one thing shows, read by rules: the ground, and colour and place of what is before it.

The ground is the candidate, of all that there are, from which the picture's pixels differ least in the median. What
differs from it strongly is the thing, whatever it is: its place is the third in which its centre of mass lies, its
colour the named one that most of its inner pixels are nearest to. So a blob counts, which the detector of the small
world calls unrecognised; nouns are the detector's. How often the rules are right is measured on true pictures that went
through the autoencoder: the row "true pictures" of the table.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curation.scenes.drawing import draw
from curation.scenes.scene import Ground, Scene, Split
from curation.scenes.vocabulary import COLOURS, COLUMNS, LANDSCAPES, ROWS

Floats = NDArray[np.float32]

_SIDE_PX: Final = 64
_APART: Final = 70.0  # levels, Euclidean in RGB, from which a pixel is not the ground
_MIDDLES: Final = (np.arange(_SIDE_PX) + 0.5) / _SIDE_PX  # of the pixels, as shares of the side
_LEAST_SHARE: Final = 0.006  # of the pixels, below which nothing is there; the smallest thing has 0.02


@dataclass(frozen=True, slots=True)
class Shown:
    """What is in a picture; the thing's values are empty where there is none."""

    ground: Ground
    colour: str = ""
    row: str = ""
    column: str = ""


def read(picture: Image.Image) -> Shown:
    """What a square picture shows."""
    pixels = _pixels(picture)
    candidates, templates = _grounds()
    differences = np.linalg.norm(pixels[None] - templates, axis=3)
    best = int(np.median(differences, axis=(1, 2)).argmin())
    apart = differences[best]
    mask = apart > _APART
    if mask.mean() < _LEAST_SHARE:
        return Shown(candidates[best])
    weights = np.maximum(apart - _APART, 0.0)
    row, column = (int((weights.sum(axis) @ _MIDDLES) / weights.sum() * 3) for axis in (1, 0))
    inside = apart >= np.median(apart[mask])  # at the edge colours are mixed with the ground's
    return Shown(candidates[best], _colour(pixels[inside]), ROWS[row], COLUMNS[column])


def _pixels(picture: Image.Image) -> Floats:
    return np.asarray(picture.convert("RGB").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX), np.float32)


@functools.cache
def _grounds() -> tuple[Sequence[Ground], Floats]:
    """All grounds, and their pictures [N, 64, 64, 3]."""
    plain = [Ground("plain", (name,)) for name in COLOURS]
    mixed = [Ground("gradient", (top, low)) for top in COLOURS for low in COLOURS if top != low]
    every = [*plain, *mixed, *(Ground(kind) for kind in LANDSCAPES)]
    bare = [Scene(Split.TRAIN, 0, 0, (), ground, "flat", 2 * _SIDE_PX, 2 * _SIDE_PX) for ground in every]
    return every, np.stack([_pixels(draw(one)) for one in bare])


def _colour(pixels: Floats) -> str:
    """The named colour that most pixels [N, 3] are nearest to."""
    named = np.array(list(COLOURS.values()), np.float32)
    nearest = np.linalg.norm(pixels[:, None] - named[None], axis=2).argmin(1)
    return list(COLOURS)[int(np.bincount(nearest, minlength=len(COLOURS)).argmax())]
