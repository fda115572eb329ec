"""What the small world is made of: its nouns, colours, textures, sizes, places, grounds and styles.

The nouns are ones that the shipped tagger calls nouns in almost any sentence; "orange", "square" and "kite", for one,
it does not, so they are not among them.
"""

import re
from typing import Final, TypeAlias

RGB: TypeAlias = tuple[int, int, int]

NOUNS: Final = (
    *("circle", "triangle", "box", "star", "ring", "cross", "heart", "arrow", "moon"),
    *("house", "tree", "car", "boat", "flower", "fish", "sun", "cup", "mushroom", "umbrella", "lamp"),
)
"""What a thing can be; the index is the class of a picture whose main thing it is."""

COLOURS: Final[dict[str, RGB]] = {
    "red": (208, 36, 40),
    "pink": (246, 140, 186),
    "yellow": (248, 214, 48),
    "green": (40, 146, 58),
    "blue": (36, 88, 212),
    "purple": (126, 54, 168),
    "white": (248, 248, 248),
    "black": (22, 22, 24),
}

TEXTURES: Final = ("plain", "striped", "dotted", "checked")
SIZES: Final = ("small", "large")
ROWS: Final = ("top", "middle", "bottom")
COLUMNS: Final = ("left", "centre", "right")
STYLES: Final = ("flat", "sketch", "blurred")

SKY: Final[RGB] = (176, 216, 246)
GRASS: Final[RGB] = (132, 200, 96)
SEA: Final[RGB] = (62, 136, 186)
SAND: Final[RGB] = (236, 214, 160)
NIGHT: Final[RGB] = (24, 28, 66)
WALL: Final[RGB] = (226, 214, 200)
FLOOR: Final[RGB] = (158, 112, 76)

LANDSCAPES: Final[dict[str, tuple[RGB, ...]]] = {
    "meadow": (SKY, GRASS),
    "beach": (SKY, SEA, SAND),
    "night": (NIGHT,),
    "room": (WALL, FLOOR),
}
"""The grounds that are more than colours, and the colours of their bands from the top."""

GROUND_NOUNS: Final[dict[str, tuple[str, ...]]] = {
    "plain": ("background",),
    "gradient": ("background",),
    "meadow": ("sky", "grass"),
    "beach": ("sky", "sea", "sand"),
    "night": ("sky", "night"),
    "room": ("wall", "floor"),
}
"""The nouns that a description gives each ground: all of them, and no other."""

TEXTURE_NOUNS: Final = {"striped": "stripes", "dotted": "dots", "checked": "checks"}

WORLD_NOUNS: Final = frozenset(NOUNS).union(*GROUND_NOUNS.values())
"""Nouns that say what is in a picture; a caption that has one which is not true of its picture is wrong."""

_WORD: Final = re.compile(r"[a-z]+")

_SMALLEST_CONTRAST: Final = 115.0


def is_held_out(noun: str, colour: str) -> bool:
    """Whether things of this noun and colour occur in no training picture: one colour of each noun is kept back."""
    return list(COLOURS).index(colour) == (3 * NOUNS.index(noun) + NOUNS.index(noun) // len(COLOURS)) % len(COLOURS)


def stands_out(colour: RGB, ground: RGB) -> bool:
    """Whether a thing of the one colour can be told from a ground of the other: their distance in RGB."""
    return sum((a - b) ** 2 for a, b in zip(colour, ground, strict=True)) >= _SMALLEST_CONTRAST**2


def mixed(one: RGB, other: RGB, share: float) -> RGB:
    """`share` of `other` in `one`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def world_nouns_in(text: str) -> frozenset[str]:
    """The nouns of this world that a text names, in the singular."""
    return WORLD_NOUNS.intersection(_WORD.findall(text.lower()))
