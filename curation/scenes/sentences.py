"""Tell a scene in sentences, as a LLaVA would: every thing with colour, size, texture and place, how things lie to one
another, the ground and the style. What is said is true, nothing is left out, and no two scenes need be told alike."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from curation.scenes.scene import Scene, Thing, generator, pick
from curation.scenes.vocabulary import TEXTURE_NOUNS

_SENTENCE_STREAM: Final = 1_000  # of randomness, and one further for each variant
_NUMBERS: Final = {2: "two", 3: "three"}

PLACES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("top", "left"): ("in the top left corner", "at the upper left", "in the upper left part of the {image}"),
    ("top", "centre"): ("at the top, in the middle", "at the top centre", "near the middle of the upper edge"),
    ("top", "right"): ("in the top right corner", "at the upper right", "in the upper right part of the {image}"),
    ("middle", "left"): ("on the left, halfway up", "at the left, at mid height", "on the left side, halfway up"),
    ("middle", "centre"): ("in the centre", "in the middle of the {image}", "at the centre of the {image}"),
    ("middle", "right"): ("on the right, halfway up", "at the right, at mid height", "on the right side, halfway up"),
    ("bottom", "left"): ("in the bottom left corner", "at the lower left", "in the lower left part of the {image}"),
    ("bottom", "centre"): ("at the bottom, in the middle", "at the bottom centre", "near the middle of the lower edge"),
    ("bottom", "right"): ("in the bottom right corner", "at the lower right", "in the lower right part of the {image}"),
}
"""How each place is said. No phrase stands for two of them."""

SIZE_WORDS: Final = {"small": ("small", "small", "little"), "large": ("large", "large", "big")}

_FIRST: Final = (
    "The {image} features {thing} {place}.",
    "The {image} shows {thing} {place}.",
    "This {image} presents {thing}, placed {place}.",
    "The main subject of the {image} is {thing}, {place}.",
    "The {image} depicts {thing}, which is located {place}.",
    "{Place}, there is {thing}.",
    "{Thing} is the main subject and sits {place}.",
    "{Thing} stands {place}.",
    "In this {image}, {thing} can be seen {place}.",
    "{Thing} appears {place}, and draws the eye.",
)
_NEXT: Final = (
    "There is also {thing} {place}.",
    "{Place}, {thing} can be seen.",
    "{Thing} is located {place}.",
    "{Place} there is {thing}.",
    "Another object, {thing}, appears {place}.",
    "{Thing} sits {place}.",
    "In addition, {thing} is visible {place}.",
    "Besides that, the {image} has {thing} {place}.",
    "{Thing} can be found {place}.",
)
_RELATIONS: Final[dict[str, tuple[str, ...]]] = {
    "left of": (
        "The {one} is to the left of the {other}.",
        "The {one} stands left of the {other}.",
        "Seen from the front, the {one} is placed on the left of the {other}.",
    ),
    "right of": (
        "The {one} is to the right of the {other}.",
        "The {one} stands right of the {other}.",
        "Seen from the front, the {one} is placed on the right of the {other}.",
    ),
    "above": (
        "The {one} is above the {other}.",
        "The {one} is placed higher than the {other}.",
        "The {one} appears above the {other}.",
    ),
    "below": (
        "The {one} is below the {other}.",
        "The {one} is placed lower than the {other}.",
        "The {one} appears below the {other}.",
    ),
}
_COUNTS: Final = (
    "There are {count} objects in total.",
    "In all, {count} objects are visible.",
    "The scene holds {count} separate objects.",
)
_GROUNDS: Final[dict[str, tuple[str, ...]]] = {
    "plain": (
        "The background is plain {first}.",
        "Everything is set against a plain {first} background.",
        "The {first} background is plain and empty.",
        "A uniform {first} background fills the rest of the {image}.",
    ),
    "gradient": (
        "The background fades from {first} to {last}.",
        "The background changes smoothly from {first} in its upper part to {last} below.",
        "Behind this, a gradient background runs down from {first} to {last}.",
    ),
    "meadow": (
        "Green grass stretches out below a light blue sky.",
        "The grass is green, and the sky above it is clear and pale blue.",
        "The setting is outdoors, with a pale blue sky over green grass.",
    ),
    "beach": (
        "Behind this, the blue sea meets a pale sky, with yellow sand in front.",
        "The setting is outdoors, with sand, the sea and a pale blue sky.",
        "The sky is pale blue, the sea is calm, and the sand in front is light.",
    ),
    "night": (
        "It is night, and the sky is dark.",
        "A dark sky full of tiny lights shows that it is night.",
        "The setting is outdoors at night, under a dark sky.",
    ),
    "room": (
        "The setting is indoors, with a bare wall and a brown floor.",
        "The wall behind is pale, and the floor is brown.",
        "A brown floor and a plain, pale wall make up the rest of the {image}.",
    ),
}
_STYLES: Final[dict[str, tuple[str, ...]]] = {
    "flat": (
        "The style of the {image} is flat and simple, with clean edges.",
        "The overall style is flat, like that of a printed poster.",
        "It is a flat illustration with clear outlines.",
        "The {image} has a flat, graphic style with solid colours.",
    ),
    "sketch": (
        "The style is that of a sketch, drawn with loose lines.",
        "It is drawn as a rough sketch, with outlines and hatching.",
        "The {image} is a sketch in coloured pencil.",
    ),
    "blurred": (
        "The whole {image} is blurred, with soft edges.",
        "The {image} is out of focus, so that everything looks soft.",
        "The style is soft and blurred, without any sharp edge.",
    ),
}
_IMAGES: Final = ("image", "image", "picture", "picture", "scene")
_TWO_SENTENCES: Final = 0.2
_AFTER_NOUN: Final = 0.25
_GROUND_FIRST: Final = 0.2
_STYLE_FIRST: Final = 0.12
_RELATION: Final = 0.6
_COUNT: Final = 0.15


def describe(scene: Scene, *, variant: int = 0) -> str:
    """The dense description; each variant says the same in other words."""
    random = generator(scene.seed, scene.number, _SENTENCE_STREAM + variant)
    image = pick(random, _IMAGES)
    told = []
    for index, thing in enumerate(scene.things):
        told += _told(random, thing, _NEXT if index else _FIRST)
    if len(scene.things) > 1:
        told += _relations(random, scene)
        if random.random() < _COUNT:
            told.append(pick(random, _COUNTS).format(count=_NUMBERS[len(scene.things)], image="{image}"))
    ground = pick(random, _GROUNDS[scene.ground.kind])
    style = pick(random, _STYLES[scene.style])
    colours = scene.ground.colours or ("",)
    ground = ground.format(first=colours[0], last=colours[-1], image="{image}")
    order = random.random()
    if order < _STYLE_FIRST:
        told = [style, *told, ground]
    elif order < _STYLE_FIRST + _GROUND_FIRST:
        told = [ground.replace("Behind this, ", "Behind everything, "), *told, style]
    else:
        told = [*told, ground, style]
    return " ".join(told).format(image=image)


def name(thing: Thing) -> str:
    """The thing in two words: colour and noun."""
    return f"{thing.colour} {thing.noun}"


def _told(random: np.random.Generator, thing: Thing, forms: Sequence[str]) -> list[str]:
    """The sentence that introduces a thing, and sometimes a second one about its looks."""
    size, place = pick(random, SIZE_WORDS[thing.size]), pick(random, PLACES[thing.row, thing.column])
    texture = "" if thing.texture == "plain" else thing.texture
    if random.random() < _TWO_SENTENCES:
        looks = f"It is {size} and {texture}." if texture else f"It is {size}."
        return [_filled(pick(random, forms), _with_article(name(thing)), place), looks]
    if texture and random.random() < _AFTER_NOUN:
        pattern = f"with {TEXTURE_NOUNS[texture]}" if texture != "checked" else "with a pattern of checks"
        what = f"{size} {name(thing)} {pattern}"
    elif not texture and random.random() < _AFTER_NOUN:
        what = f"{size}, plain {name(thing)}"
    else:
        what = " ".join(word for word in (size, texture, name(thing)) if word)
    return [_filled(pick(random, forms), _with_article(what), place)]


def _relations(random: np.random.Generator, scene: Scene) -> list[str]:
    """At most two of the relations that hold, each about another pair."""
    told, pairs = [], set[frozenset[int]]()
    found = scene.relations
    for index in random.permutation(len(found)).tolist():
        relation = found[index]
        pair = frozenset((relation.one, relation.other))
        if len(pairs) == 2 or pair in pairs or random.random() > _RELATION:
            continue
        pairs.add(pair)
        one, other = scene.things[relation.one], scene.things[relation.other]
        both = (name, name) if random.random() < 0.5 else (_noun, _noun)
        told.append(pick(random, _RELATIONS[relation.kind]).format(one=both[0](one), other=both[1](other)))
    return told


def _noun(thing: Thing) -> str:
    return thing.noun


def _filled(form: str, thing: str, place: str) -> str:
    """The sentence with thing and place in it; the image's word is filled in later."""
    return form.format(thing=thing, Thing=_capital(thing), place=place, Place=_capital(place), image="{image}")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
