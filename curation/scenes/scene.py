"""What a picture of the small world shows, as a record; a pure function of split, seed and number.

Scenes of different splits never share randomness, and a training scene never holds a noun in the colour that is kept
back for it (`vocabulary.is_held_out`), so that a model can be asked for what it has not seen.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeVar

import numpy as np

from curation.scenes.vocabulary import (
    COLOURS,
    COLUMNS,
    GROUND_NOUNS,
    LANDSCAPES,
    NOUNS,
    RGB,
    ROWS,
    TEXTURES,
    is_held_out,
    mixed,
    stands_out,
)

T = TypeVar("T")


class Split(StrEnum):
    """Which pictures a scene is for. `TEST` is like `TRAIN` but for its randomness; in `NOVEL` the main thing has the
    colour that no picture of the others has it in."""

    TRAIN = "train"
    TEST = "test"
    NOVEL = "novel"


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a picture. `x` and `y` are its centre as shares of width and height from the top left; `radius`,
    half the side of the square it fills, is a share of the shorter side."""

    noun: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    radius: float

    @property
    def row(self) -> str:
        """The third of the height that its centre lies in: top, middle or bottom."""
        return ROWS[int(self.y * len(ROWS))]

    @property
    def column(self) -> str:
        """The third of the width that its centre lies in: left, centre or right."""
        return COLUMNS[int(self.x * len(COLUMNS))]


@dataclass(frozen=True, slots=True)
class Relation:
    """Thing `one` is `kind` (left of, right of, above, below) thing `other`; both are indices into the things."""

    one: int
    kind: str
    other: int


@dataclass(frozen=True, slots=True)
class Ground:
    """What is behind the things: `kind` is a key of GROUND_NOUNS; `colours` are one name for a plain ground, two from
    the top for a gradient, none for a landscape."""

    kind: str
    colours: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[RGB, ...]:
        """The colours that things stand before."""
        if self.kind in LANDSCAPES:
            return LANDSCAPES[self.kind]
        named = tuple(COLOURS[name] for name in self.colours)
        return (named[0], mixed(named[0], named[1], 0.5), named[1]) if len(named) > 1 else named


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. The first thing is the main one: no other has a larger size."""

    split: Split
    seed: int
    number: int
    things: tuple[Thing, ...]
    ground: Ground
    style: str  # one of STYLES
    height_px: int
    width_px: int

    @property
    def label(self) -> int:
        """The class: the index of the main thing's noun in NOUNS."""
        return NOUNS.index(self.things[0].noun)

    @property
    def nouns(self) -> frozenset[str]:
        """All that is there to name: things and the parts of the ground."""
        return frozenset([thing.noun for thing in self.things]).union(GROUND_NOUNS[self.ground.kind])

    @property
    def relations(self) -> tuple[Relation, ...]:
        """How things lie to one another, for all pairs in both orders, where their thirds of the picture differ."""
        found = []
        for (i, one), (j, other) in itertools.permutations(enumerate(self.things), 2):
            across = COLUMNS.index(one.column) - COLUMNS.index(other.column)
            down = ROWS.index(one.row) - ROWS.index(other.row)
            found += [Relation(i, "left of" if across < 0 else "right of", j)] if across else []
            found += [Relation(i, "above" if down < 0 else "below", j)] if down else []
        return tuple(found)


_SQUARES: Final = ((192, 192), (256, 256), (128, 128))
_HEIGHTS_AND_WIDTHS: Final = (*_SQUARES, (192, 256), (256, 192), (160, 240), (240, 160))
_RADII: Final = {"small": (0.15, 0.14, 0.13), "large": (0.26, 0.22, 0.2)}  # with one, two, three things
_SPREAD: Final = 0.05  # of the radius
_CENTRES: Final = (0.18, 0.5, 0.82)
_JITTER: Final = 0.02
_GAP: Final = 0.02
_MARGIN: Final = 0.015
_FEWEST_COLOURS: Final = 3
_HOW_MANY: Final = {1: 0.35, 2: 0.4, 3: 0.25}
_PLAIN: Final = {"small": 0.7, "large": 0.5}  # a texture on a small thing is hard to see
_STYLES: Final = {"flat": 0.6, "sketch": 0.2, "blurred": 0.2}
_GROUNDS: Final = {"plain": 0.4, "gradient": 0.16, "meadow": 0.12, "beach": 0.12, "night": 0.1, "room": 0.1}


def scene(
    seed: int, number: int, *, split: Split = Split.TRAIN, things: int | None = None, square: bool = False
) -> Scene:
    """The scene of that number. `things` fixes how many things it has (1 to 3); with `square` it is one."""
    random = generator(seed, number, list(Split).index(split))
    height_px, width_px = pick(random, _SQUARES if square else _HEIGHTS_AND_WIDTHS)
    style = weighted(random, _STYLES)
    ground = _ground(random)
    count = weighted(random, _HOW_MANY) if things is None else things
    nouns = [NOUNS[index] for index in random.permutation(len(NOUNS))[:count]]
    while not _colours(nouns[0], ground, split, main=True):  # the colour kept back may not stand out from the ground
        ground = _ground(random)
    places = _places(random, count, height_px, width_px)
    made = []
    for index, (noun, place) in enumerate(zip(nouns, places, strict=True)):
        colour = pick(random, _colours(noun, ground, split, main=index == 0))
        plain = style == "sketch" or random.random() < _PLAIN[place[0]]
        made.append(Thing(noun, colour, "plain" if plain else pick(random, TEXTURES[1:]), *place))
    return Scene(split, seed, number, tuple(made), ground, style, height_px, width_px)


def generator(seed: int, number: int, stream: int) -> np.random.Generator:
    """Randomness of its own for each seed, number and stream."""
    return np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, stream]))


def pick(random: np.random.Generator, of: Sequence[T]) -> T:
    """One of them, all alike."""
    return of[int(random.integers(len(of)))]


def weighted(random: np.random.Generator, weights: dict[T, float]) -> T:
    """One of the keys, by weights that add up to one."""
    at = np.searchsorted(np.cumsum(list(weights.values())), random.random(), side="right")
    return list(weights)[min(int(at), len(weights) - 1)]


def _ground(random: np.random.Generator) -> Ground:
    kind = weighted(random, _GROUNDS)
    if kind in LANDSCAPES:
        return Ground(kind)
    while True:
        colours = [list(COLOURS)[i] for i in random.permutation(len(COLOURS))[: 1 if kind == "plain" else 2]]
        ground = Ground(kind, tuple(colours))
        if len(_standing_out(ground)) >= _FEWEST_COLOURS:
            return ground


def _standing_out(ground: Ground) -> list[str]:
    """The colours that can be told from every part of the ground, and are not its own."""
    return [name for name, rgb in COLOURS.items() if all(stands_out(rgb, band) for band in ground.bands)]


def _colours(noun: str, ground: Ground, split: Split, *, main: bool) -> list[str]:
    """The colours that a thing of that noun may have there."""
    held_out = split is Split.NOVEL and main
    return [colour for colour in _standing_out(ground) if is_held_out(noun, colour) is held_out]


def _places(random: np.random.Generator, count: int, height_px: int, width_px: int) -> list[Any]:
    """(size, x, y, radius) of `count` things that lie apart, in thirds of their own, the largest first."""
    while True:
        sizes = ["large" if random.random() < 0.7 / count**0.5 else "small" for _ in range(count)]
        cells = random.permutation(len(_CENTRES) ** 2)[:count].tolist()
        places = [
            (size, *_place(random, _RADII[size][count - 1], divmod(cell, len(_CENTRES)), height_px, width_px))
            for size, cell in zip(sorted(sizes), cells, strict=True)  # "large" sorts before "small"
        ]
        if all(_apart(a, b, height_px, width_px) for a, b in itertools.combinations(places, 2)):
            return places


def _place(
    random: np.random.Generator, usual: float, cell: tuple[int, int], height_px: int, width_px: int
) -> tuple[float, float, float]:
    """Centre and radius of a thing near the middle of a third, wholly within the picture."""
    short = min(height_px, width_px)
    radius = usual * (1 + random.uniform(-_SPREAD, _SPREAD))
    y, x = (_CENTRES[at] + random.uniform(-_JITTER, _JITTER) for at in cell)
    inset_x, inset_y = ((radius + _MARGIN) * short / side for side in (width_px, height_px))
    x, y = float(np.clip(x, inset_x, 1 - inset_x)), float(np.clip(y, inset_y, 1 - inset_y))
    return round(x, 4), round(y, 4), round(radius, 4)


def _apart(
    a: tuple[str, float, float, float], b: tuple[str, float, float, float], height_px: int, width_px: int
) -> bool:
    """Whether the squares that two things fill are parted by a gap."""
    short = min(height_px, width_px)
    reach = a[3] + b[3] + _GAP
    return max(abs(a[1] - b[1]) * width_px, abs(a[2] - b[2]) * height_px) >= reach * short
