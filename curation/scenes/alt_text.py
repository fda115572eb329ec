"""The text that the web would have beside a picture: mostly short and partly true, often about something else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from curation.scenes.scene import Scene, generator, pick, weighted
from curation.scenes.vocabulary import COLOURS, NOUNS

_ALT_STREAM: Final = 200  # of randomness

_OF_ONE: Final = (
    "{first.noun}",
    "{first.colour} {first.noun}",
    "a {first.colour} {first.noun}",
    "{first.noun} clipart",
)
_OF_TWO: Final = ("{first.noun} and {last.noun}", "{first.colour} {first.noun} with a {last.noun}")
_SHOP: Final = (
    "{Name} {What} Art Print {a}x{b} cm",
    "{What} | {Name} Home Decor | FREE SHIPPING",
    "{Name}® {What} - Set of {n}, Model {code}",
    "Buy {what} online at {name}.com - {n}% off",
    "{What} T-Shirt, Unisex, by {Name} & {Other}",
    "{What} vinyl sticker ({code}) {Name} Store",
    "{What} Stock Illustration {number}",
)
_NOISE: Final = (
    "IMG_{number}",
    "DSC0{n}{b}.JPG",
    "Screenshot {number}",
    "{Name} {Other} | Pinterest",
    "best wallpapers {year}",
    "{Name} Gallery - page {n}",
    "Photo by {Name} {Other}",
    "click to enlarge",
    "{name}-{other}-{code}.png",
    "Untitled ({year}) by {Name} {Other}",
)
_FILES: Final = ("{what}-{n}.jpg", "{what}_final_v{n}.png", "{name}_{what}_{a}x{b}", "clipart-{what}-{number}")
_SYLLABLES: Final = ("ba", "vel", "ko", "mi", "ran", "tor", "lu", "sen", "da", "qui", "zo", "nel", "fa", "mar", "vo")


@dataclass(frozen=True, slots=True)
class AltText:
    """`kind` says how it came about: partial, shop, file, wrong, noise or empty."""

    text: str
    kind: str


def alt_text(scene: Scene) -> AltText:
    """The alt text of a scene."""
    random = generator(scene.seed, scene.number, _ALT_STREAM)
    kind = weighted(random, {name: share for name, (share, _) in _KINDS.items()})
    return AltText(_KINDS[kind][1](random, scene), kind)


def _partial(random: np.random.Generator, scene: Scene) -> str:
    """True of one thing or two, with no word on the rest."""
    things = [scene.things[i] for i in random.permutation(len(scene.things))[:2].tolist()]
    first, last = things[0], things[-1]
    forms = _OF_ONE if len(things) == 1 else _OF_ONE + _OF_TWO
    return pick(random, forms).format(first=first, last=last)


def _shop(random: np.random.Generator, scene: Scene) -> str:
    return _filled(random, pick(random, _SHOP), f"{scene.things[0].colour} {scene.things[0].noun}")


def _file(random: np.random.Generator, scene: Scene) -> str:
    joined = pick(random, "-_").join((scene.things[0].colour, scene.things[0].noun))
    return _filled(random, pick(random, _FILES), joined)


def _wrong(random: np.random.Generator, scene: Scene) -> str:
    """About a thing that is not there."""
    absent = [noun for noun in NOUNS if noun not in scene.nouns]
    return f"{pick(random, list(COLOURS))} {pick(random, absent)}"


def _noise(random: np.random.Generator, scene: Scene) -> str:
    return _filled(random, pick(random, _NOISE), "")


def _empty(random: np.random.Generator, scene: Scene) -> str:
    return ""


_KINDS: Final[dict[str, tuple[float, Callable[[np.random.Generator, Scene], str]]]] = {
    "partial": (0.46, _partial),
    "shop": (0.16, _shop),
    "file": (0.08, _file),
    "wrong": (0.1, _wrong),
    "noise": (0.14, _noise),
    "empty": (0.06, _empty),
}


def _filled(random: np.random.Generator, form: str, what: str) -> str:
    """The form with made-up names and numbers, of which there is no end, as on the web."""
    name, other = (_invented(random) for _ in range(2))
    a, b, n, year, number = (int(random.integers(*ends)) for ends in _NUMBERS)
    code = f"{name[:2].upper()}{random.integers(100, 10_000)}"
    words = {"name": name, "Name": name.title(), "other": other, "Other": other.title(), "what": what}
    return form.format(What=what.title(), a=a, b=b, n=n, year=year, number=number, code=code, **words)


_NUMBERS: Final = ((20, 100), (20, 100), (2, 90), (2009, 2024), (10_000, 100_000_000))


def _invented(random: np.random.Generator) -> str:
    return "".join(pick(random, _SYLLABLES) for _ in range(int(random.integers(2, 5))))
