"""How each noun is drawn: a list of parts in drawing order, in a square that reaches from -1 to 1, y pointing down."""

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Point: TypeAlias = tuple[float, float]
Paint: TypeAlias = Literal["body", "shade", "light", "dark", "wood"]
"""`body` has the thing's colour and texture; `shade` a darker tone of the colour; the others are the same for all."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a figure. A `polygon` has its corners; an `ellipse` the top left and bottom right of its box; a
    `line` its points and a `width`; a `ring` a box and the `width` of its band."""

    kind: Literal["polygon", "ellipse", "line", "ring"]
    points: tuple[Point, ...]
    paint: Paint = "body"
    width: float = 0.0


def _around(count: int, radii: tuple[float, ...], *, y: float = 0.0) -> tuple[Point, ...]:
    """`count` points on circles of those radii in turn, the first at the top."""
    angles = [2 * math.pi * i / count - math.pi / 2 for i in range(count)]
    return tuple(
        (math.cos(angle) * radii[i % len(radii)], y + math.sin(angle) * radii[i % len(radii)])
        for i, angle in enumerate(angles)
    )


def _disc(x: float, y: float, radius: float, paint: Paint = "body") -> Part:
    return Part("ellipse", ((x - radius, y - radius), (x + radius, y + radius)), paint)


def _oblong(left: float, top: float, right: float, bottom: float, paint: Paint = "body") -> Part:
    return Part("polygon", ((left, top), (right, top), (right, bottom), (left, bottom)), paint)


def _arc(radius: float, start: float, end: float, *, x: float = 0.0, y: float = 0.0) -> tuple[Point, ...]:
    """Points on a circle from one angle to the other, in degrees clockwise from the right."""
    steps = 24
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return tuple((x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles)


def _turned(points: tuple[Point, ...], degrees: float) -> tuple[Point, ...]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return tuple((x * cos - y * sin, x * sin + y * cos) for x, y in points)


_HEART: Final = tuple(
    (1.0 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
    for t in (2 * math.pi * i / 48 for i in range(48))
)

FIGURES: Final[dict[str, tuple[Part, ...]]] = {
    "circle": (_disc(0, 0, 0.96),),
    "triangle": (Part("polygon", ((0, -0.95), (1, 0.85), (-1, 0.85))),),
    "box": (
        Part("polygon", ((-0.95, -0.45), (-0.45, -0.92), (0.95, -0.92), (0.45, -0.45)), "shade"),
        Part("polygon", ((0.45, -0.45), (0.95, -0.92), (0.95, 0.42), (0.45, 0.92)), "shade"),
        _oblong(-0.95, -0.45, 0.45, 0.92),
    ),
    "star": (Part("polygon", _around(10, (1.0, 0.42), y=0.06)),),
    "ring": (Part("ring", ((-0.97, -0.97), (0.97, 0.97)), width=0.4),),
    "cross": (
        Part(
            "polygon",
            (
                *((-0.34, -0.97), (0.34, -0.97), (0.34, -0.34), (0.97, -0.34), (0.97, 0.34), (0.34, 0.34)),
                *((0.34, 0.97), (-0.34, 0.97), (-0.34, 0.34), (-0.97, 0.34), (-0.97, -0.34), (-0.34, -0.34)),
            ),
        ),
    ),
    "heart": (Part("polygon", _HEART),),
    "arrow": (
        Part(
            "polygon",
            ((-1, -0.26), (0.1, -0.26), (0.1, -0.78), (1, 0), (0.1, 0.78), (0.1, 0.26), (-1, 0.26)),
        ),
    ),
    "moon": (Part("polygon", (*_arc(0.95, 50, 310, x=0.12), *_arc(0.78, 292, 68, x=0.42))),),
    "house": (
        _oblong(0.42, -0.85, 0.66, -0.2, "shade"),
        _oblong(-0.72, -0.12, 0.72, 0.95),
        Part("polygon", ((0, -1), (1, -0.08), (-1, -0.08)), "shade"),
        _oblong(-0.2, 0.35, 0.2, 0.95, "dark"),
        _oblong(-0.56, 0.1, -0.28, 0.42, "light"),
        _oblong(0.28, 0.1, 0.56, 0.42, "light"),
    ),
    "tree": (
        _oblong(-0.16, 0.3, 0.16, 1, "wood"),
        _disc(-0.45, -0.05, 0.5),
        _disc(0.45, -0.05, 0.5),
        _disc(0, -0.45, 0.54),
        _disc(0, 0.05, 0.46),
    ),
    "car": (
        Part("polygon", ((-0.6, -0.02), (-0.38, -0.58), (0.34, -0.58), (0.66, -0.02))),
        _oblong(-1, -0.06, 1, 0.46),
        Part("polygon", ((-0.42, -0.06), (-0.28, -0.44), (-0.04, -0.44), (-0.04, -0.06)), "light"),
        Part("polygon", ((0.06, -0.06), (0.06, -0.44), (0.28, -0.44), (0.46, -0.06)), "light"),
        _disc(-0.52, 0.46, 0.27, "dark"),
        _disc(0.52, 0.46, 0.27, "dark"),
    ),
    "boat": (
        _oblong(-0.07, -0.98, 0.05, 0.4, "wood"),
        Part("polygon", ((0.1, -0.92), (0.84, 0.24), (0.1, 0.24)), "light"),
        Part("polygon", ((-0.12, -0.7), (-0.12, 0.24), (-0.68, 0.24)), "light"),
        Part("polygon", ((-1, 0.34), (1, 0.34), (0.62, 0.92), (-0.62, 0.92))),
    ),
    "flower": (
        Part("line", ((0, 0), (0, 1)), "wood", 0.12),
        *(_disc(x, y, 0.33) for x, y in _around(6, (0.44,), y=-0.24)),
        _disc(0, -0.24, 0.25, "dark"),
    ),
    "fish": (
        Part("polygon", ((0.4, 0), (1, -0.6), (0.88, 0), (1, 0.6)), "shade"),
        Part("ellipse", ((-1, -0.56), (0.62, 0.56))),
        _disc(-0.62, -0.12, 0.14, "light"),
        _disc(-0.62, -0.12, 0.08, "dark"),
    ),
    "sun": (
        *(Part("polygon", _turned(((0.66, -0.15), (1.0, 0.0), (0.66, 0.15)), 36.0 * i)) for i in range(10)),
        _disc(0, 0, 0.58),
    ),
    "cup": (
        Part("ring", ((0.3, -0.42), (0.98, 0.34)), width=0.17),
        Part("polygon", ((-0.86, -0.68), (0.62, -0.68), (0.44, 0.86), (-0.68, 0.86))),
        Part("ellipse", ((-0.86, -0.86), (0.62, -0.5)), "dark"),
    ),
    "mushroom": (
        Part("polygon", ((-0.28, 0), (0.28, 0), (0.38, 0.95), (-0.38, 0.95)), "light"),
        Part("polygon", (*_arc(0.96, 180, 360, y=0.14),)),
    ),
    "umbrella": (
        Part("line", ((0, -0.9), (0, 0.74)), "dark", 0.1),
        Part("line", _arc(0.18, 0, 180, x=-0.18, y=0.74), "dark", 0.1),
        Part(
            "polygon",
            (
                *_arc(0.97, 180, 360, y=0.1),
                *_arc(0.3235, 0, -180, x=0.6467, y=0.1),
                *_arc(0.3235, 0, -180, y=0.1),
                *_arc(0.3235, 0, -180, x=-0.6467, y=0.1),
            ),
        ),
    ),
    "lamp": (
        _oblong(-0.07, 0.1, 0.07, 0.85, "dark"),
        Part("ellipse", ((-0.46, 0.72), (0.46, 0.98)), "dark"),
        Part("polygon", ((-0.42, -0.95), (0.42, -0.95), (0.84, 0.2), (-0.84, 0.2))),
    ),
}
