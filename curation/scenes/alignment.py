"""How well pictures show the scenes that were asked for, counted thing by thing, and what mere chance would give."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final

import numpy as np

from curation.scenes.scene import Scene

_SHUFFLES: Final = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """A thing, by what it is and where. `size` is small or large."""

    noun: str
    colour: str
    size: str
    row: str
    column: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a picture shows. `unrecognised` counts places that show something to which no noun fits; `ground` is a key
    of GROUND_NOUNS, and `ground_colours` are one for a plain ground, two for a gradient, none for a landscape."""

    things: tuple[Seen, ...]
    ground: str
    ground_colours: tuple[str, ...]
    unrecognised: int = 0


def asked_of(scene: Scene) -> Reading:
    """What a picture of the scene should be read as."""
    things = tuple(Seen(one.noun, one.colour, one.size, one.row, one.column) for one in scene.things)
    return Reading(things, scene.ground.kind, scene.ground.colours)


def asked_in(truth: Mapping[str, Any]) -> Reading:
    """The same, of a line of a `truth.jsonl`. Raises KeyError if it lacks a field."""
    things = tuple(Seen(*(str(one[field.name]) for field in fields(Seen))) for one in truth["things"])
    return Reading(things, str(truth["ground"]["kind"]), tuple(map(str, truth["ground"]["colours"])))


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of so many; `error` is the standard error of the share, over pictures (ratio estimator)."""

    right: int
    of: int
    error: float

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.right / self.of


@dataclass(frozen=True, slots=True)
class Aligned:
    """What came out right. Of all things asked for: those `drawn` anywhere; drawn and rightly `coloured`; drawn and
    rightly `placed`; and `right` in all three. Of all pictures: `whole` ones, where every thing is right and nothing
    else is there, and ones with the right `ground`."""

    drawn: Share
    coloured: Share
    placed: Share
    right: Share
    whole: Share
    ground: Share


MEANINGS: Final = {
    "drawn": "things that are there, anywhere",
    "coloured": "... in the right colour",
    "placed": "... at the right place",
    "right": "... in the right colour at the right place",
    "whole": "pictures: every thing right, nothing else",
    "ground": "pictures: the ground right, colours included",
}
"""What each share is, for people."""


@dataclass(frozen=True, slots=True)
class AlignmentScore:
    """`chance` is the same for the same pictures, each held against what was asked of another. `ceiling` is that of the
    true pictures, where they were read: what is missing there, the reader missed."""

    pictures: int
    aligned: Aligned
    chance: Aligned
    ceiling: Aligned | None = None

    @property
    def columns(self) -> tuple[tuple[str, Aligned], ...]:
        """What `aligned` is to be seen beside, with a name for people."""
        beside = (("by chance", self.chance), ("true pictures", self.ceiling))
        return tuple((name, aligned) for name, aligned in beside if aligned is not None)


def score_set(
    asked: Sequence[Reading],
    seen: Sequence[Reading],
    *,
    prompts: Sequence[int] | None = None,
    true: Iterable[tuple[Reading, Reading]] = (),
    seed: int = 0,
) -> AlignmentScore:
    """Score pictures against what was asked of them, in the same order; `true` are (asked, seen) of true pictures.

    `prompts` numbers the prompt of each picture, where several are of one; no picture tells chance by its own prompt.
    Raises ValueError for sequences of different lengths, and for pictures of fewer than two prompts.
    """
    of = list(range(len(asked)) if prompts is None else prompts)
    if not len(asked) == len(seen) == len(of) or len({*of}) < 2:
        raise ValueError(f"{len(asked)} scenes of {len({*of})} prompts were asked for and {len(seen)} pictures read")
    random = np.random.default_rng(seed)
    others: list[tuple[int, int]] = []
    for _ in range(_SHUFFLES):
        order = random.permutation(len(asked)).tolist()
        others += [(one, other) for other, one in pairwise([order[-1], *order]) if of[one] != of[other]]
    wished, shown = [list(side) for side in zip(*true, strict=True)] or ([], [])
    return AlignmentScore(
        len(asked),
        _aligned(asked, seen, _each(asked)),
        _aligned(asked, seen, others),
        _aligned(wished, shown, _each(wished)) if wished else None,
    )


def _each(pictures: Sequence[Reading]) -> list[tuple[int, int]]:
    return [(number, number) for number in range(len(pictures))]


def _aligned(asked: Sequence[Reading], seen: Sequence[Reading], pairs: Sequence[tuple[int, int]]) -> Aligned:
    """The shares over `pairs`: what the place in `asked` wants, held against what the place in `seen` shows."""
    counts = np.array([_counts(asked[one], seen[other]) for one, other in pairs])  # [N, shares, 2]
    sides = np.array(pairs).T  # [2, N]
    return Aligned(*(_share(counts[:, index], sides) for index in range(counts.shape[1])))


def _counts(asked: Reading, seen: Reading) -> list[tuple[int, int]]:
    """(right, of) in the order of the fields of `Aligned`."""
    matches = [[one for one in seen.things if one.noun == thing.noun] for thing in asked.things]
    pairs = [(thing, found) for thing, found in zip(asked.things, matches, strict=True) if found]
    coloured = [any(one.colour == thing.colour for one in found) for thing, found in pairs]
    placed = [any(_place(one) == _place(thing) for one in found) for thing, found in pairs]
    right = [any((one.colour, _place(one)) == (thing.colour, _place(thing)) for one in found) for thing, found in pairs]
    of = len(asked.things)
    whole = sum(right) == of == len(seen.things) and not seen.unrecognised
    ground = (asked.ground, asked.ground_colours) == (seen.ground, seen.ground_colours)
    return [
        (len(pairs), of),
        (sum(coloured), of),
        (sum(placed), of),
        (sum(right), of),
        (int(whole), 1),
        (int(ground), 1),
    ]


def _place(thing: Seen) -> tuple[str, str]:
    return thing.row, thing.column


def _share(counts: "np.ndarray[Any, Any]", sides: "np.ndarray[Any, Any]") -> Share:
    """The share of `counts` [N, 2]. Pairs vary together that have a place in common, on whichever of their `sides`
    [2, N]: what places add to the variance, less what pairs of the same two places have added twice (Aronow et al.
    2015)."""
    right, of = counts[:, 0], counts[:, 1]
    share = right.sum() / of.sum()
    rest = right - share * of
    apart = np.where(sides[0] == sides[1], 0.0, rest)
    places = 1 + int(sides.max())
    by_place = np.bincount(sides[0], rest, places) + np.bincount(sides[1], apart, places)
    _, same = np.unique(sides.min(0) * places + sides.max(0), return_inverse=True)
    variance = np.square(by_place).sum() - np.square(np.bincount(same, apart)).sum()
    return Share(int(right.sum()), int(of.sum()), float(np.sqrt(max(variance, 0.0)) / of.sum()))
