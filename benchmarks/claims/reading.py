"""What a drawn picture of one thing shows, read by rules: the ground, and the thing's noun, colour and place.

The ground is the candidate, of all that there are, from which the picture's pixels differ least in the median. What
differs from it strongly is the thing: its place is the third in which its centre of mass lies, its colour the named
one that most of its inner pixels are nearest to, its noun the figure whose outline is most like it. How often that is
right is measured on true pictures that went through the autoencoder: the row "true pictures" of the table.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from curation.scenes.drawing import draw
from curation.scenes.scene import Ground, Scene, Split, Thing
from curation.scenes.vocabulary import COLOURS, COLUMNS, LANDSCAPES, NOUNS, ROWS

Floats = NDArray[np.float32]

_SIDE_PX: Final = 64
_APART: Final = 70.0  # levels, Euclidean in RGB, from which a pixel is not the ground
_MIDDLES: Final = (np.arange(_SIDE_PX) + 0.5) / _SIDE_PX  # of the pixels, as shares of the side
_LEAST_SHARE: Final = 0.006  # of the pixels, below which nothing is there; the smallest thing has 0.02
_OUTLINE: Final = 24  # pixels a side that outlines are compared at
_LARGE: Final = 0.26  # radius of a large thing, as share of the side


@dataclass(frozen=True, slots=True)
class Shown:
    """What is in a picture; the thing's values are empty where there is none."""

    ground: Ground
    noun: str = ""
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
    return Shown(candidates[best], _noun(apart, mask), _colour(pixels[inside]), ROWS[row], COLUMNS[column])


def _pixels(picture: Image.Image) -> Floats:
    return np.asarray(picture.convert("RGB").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX), np.float32)


@functools.cache
def _grounds() -> tuple[Sequence[Ground], Floats]:
    """All grounds, and their pictures [N, 64, 64, 3]."""
    plain = [Ground("plain", (name,)) for name in COLOURS]
    mixed = [Ground("gradient", (top, low)) for top in COLOURS for low in COLOURS if top != low]
    every = [*plain, *mixed, *(Ground(kind) for kind in LANDSCAPES)]
    return every, np.stack([_pixels(draw(_scene(ground, ()))) for ground in every])


def _scene(ground: Ground, things: tuple[Thing, ...]) -> Scene:
    return Scene(Split.TRAIN, 0, 0, things, ground, "flat", 2 * _SIDE_PX, 2 * _SIDE_PX)


@functools.cache
def _outlines() -> Floats:
    """The outline of every noun, [20, D] of length 1."""
    ground, made = Ground("plain", ("black",)), []
    for noun in NOUNS:
        pixels = _pixels(draw(_scene(ground, (Thing(noun, "white", "plain", "large", 0.5, 0.5, _LARGE),))))
        apart = np.linalg.norm(pixels - np.array(COLOURS["black"], np.float32), axis=2)
        made.append(_outline(apart, apart > _APART))
    return np.stack(made)


def _noun(apart: Floats, mask: NDArray[np.bool_]) -> str:
    return NOUNS[int((_outlines() @ _outline(apart, mask)).argmax())]


def _outline(apart: Floats, mask: NDArray[np.bool_]) -> Floats:
    """How far the pixels of the thing's box are from the ground, as a picture of a fixed size; mean 0, length 1."""
    top, bottom, left, right = _box(mask)
    side = max(bottom - top, right - left)
    middle = (left + right) / 2, (top + bottom) / 2
    box = (middle[0] - side / 2, middle[1] - side / 2, middle[0] + side / 2, middle[1] + side / 2)
    soft = Image.fromarray(np.minimum(apart / (2 * _APART), 1.0).astype(np.float32))
    small = np.asarray(soft.transform((_OUTLINE, _OUTLINE), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR))
    centred = small.ravel() - small.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6), np.float32)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is set, where a few pixels that lie apart count for nothing."""
    rows, columns = mask.sum(1), mask.sum(0)
    found = []
    for counts in (rows, columns):
        kept = np.flatnonzero(counts >= max(1, round(0.08 * int(counts.max()))))
        found += [int(kept[0]), int(kept[-1]) + 1]
    return found[0], found[1], found[2], found[3]


def _colour(pixels: Floats) -> str:
    """The named colour that most pixels [N, 3] are nearest to."""
    named = np.array(list(COLOURS.values()), np.float32)
    nearest = np.linalg.norm(pixels[:, None] - named[None], axis=2).argmin(1)
    return list(COLOURS)[int(np.bincount(nearest, minlength=len(COLOURS)).argmax())]
