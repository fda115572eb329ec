import itertools

import numpy as np
import pytest
from PIL import Image, ImageChops

from curation.scenes.drawing import draw
from curation.scenes.scene import Ground, Scene, Split, Thing, scene
from curation.scenes.truth import box_of
from curation.scenes.vocabulary import COLOURS, NOUNS


def one_thing(noun: str, colour: str = "red", *, texture: str = "plain", style: str = "flat") -> Scene:
    thing = Thing(noun, colour, texture, "large", 0.5, 0.5, 0.25)
    ground = "white" if colour != "white" else "black"
    return Scene(Split.TRAIN, 0, 0, (thing,), Ground("plain", (ground,)), style, 128, 128)


def test_a_picture_has_the_size_of_its_scene_or_the_one_asked_for() -> None:
    one = next(s for s in (scene(0, number) for number in itertools.count()) if s.width_px > s.height_px)
    assert draw(one).size == (one.width_px, one.height_px)
    assert min(draw(one, short_px=64).size) == 64
    assert draw(one).mode == "RGB"


@pytest.mark.parametrize("noun", NOUNS)
@pytest.mark.parametrize("style", ["flat", "sketch"])
def test_a_figure_is_drawn_in_its_box_and_mostly_in_its_colour(noun: str, style: str) -> None:
    one = one_thing(noun, style=style)
    picture = np.asarray(draw(one)).astype(int)
    drawn = np.abs(picture - COLOURS["white"]).sum(-1) > 60
    rows, columns = np.nonzero(drawn)
    left, top, right, bottom = (side * 128 for side in box_of(one.things[0], one))
    assert columns.min() >= left - 1
    assert columns.max() <= right + 1
    assert rows.min() >= top - 1
    assert rows.max() <= bottom + 1
    assert max(np.ptp(columns) / (right - left), np.ptp(rows) / (bottom - top)) > 0.9
    nearest = np.array(list(COLOURS.values()))[:, None]
    seen = np.abs(nearest - picture[drawn]).sum(-1).argmin(0)
    counts = np.bincount(seen, minlength=len(COLOURS))
    counts[list(COLOURS).index("white")] = counts[list(COLOURS).index("black")] = 0
    assert list(COLOURS)[int(counts.argmax())] == "red"


def test_figures_colours_and_textures_differ_from_one_another() -> None:
    figures = [draw(one_thing(noun)) for noun in NOUNS]
    others = [draw(one_thing("circle", colour)) for colour in COLOURS if colour != "red"]
    others += [draw(one_thing("circle", texture=texture)) for texture in ("striped", "dotted", "checked")]
    others += [draw(one_thing("circle", style=style)) for style in ("sketch", "blurred")]
    for a, b in itertools.combinations(figures + others, 2):
        assert difference(a, b) > 1.0


def difference(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference, in levels of 255."""
    return float(np.asarray(ImageChops.difference(a, b)).mean())


def test_same_scene_same_picture() -> None:
    assert draw(scene(1, 2)).tobytes() == draw(scene(1, 2)).tobytes()
