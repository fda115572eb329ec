from pathlib import Path

import numpy as np
import pytest

from curation.demo.llava import pictures
from curation.demo.llava.model import LlavaSize
from curation.demo.llava.pictures import GREY, IGNORED, QUESTIONS, as_seen, drawn_scenes, patch_labels
from curation.scenes.drawing import draw
from curation.scenes.scene import Ground, Scene, Split, Thing
from curation.scenes.vocabulary import COLOURS, GROUND_NOUNS, NOUNS, SIZES, TEXTURES

SIZE = LlavaSize()


def wide_scene() -> Scene:
    """Twice as wide as high, so that the upper and lower quarter of the square are padding."""
    star = Thing("star", "red", "dotted", "small", 0.25, 0.5, 0.25)
    return Scene(Split.TRAIN, 0, 0, (star,), Ground("gradient", ("white", "black")), "flat", 96, 192)


def answers(scene: Scene) -> dict[str, np.ndarray]:
    labels = patch_labels([scene], SIZE)[0].reshape(len(QUESTIONS), SIZE.patches, SIZE.patches)
    return dict(zip(QUESTIONS, labels, strict=True))


def test_patches_of_a_thing_are_labelled_with_all_that_is_true_of_it() -> None:
    found = answers(wide_scene())
    on_star = found["noun"] == NOUNS.index("star")
    rows, columns = np.nonzero(on_star)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 4, 1, 2)
    assert set(found["colour"][on_star]) == {list(COLOURS).index("red")}
    assert set(found["texture"][on_star]) == {TEXTURES.index("dotted")}
    assert set(found["size"][on_star]) == {SIZES.index("small")}
    assert set(found["lower colour"][on_star]) == {IGNORED}


def test_patches_without_a_thing_are_labelled_with_the_ground_and_its_two_colours() -> None:
    found = answers(wide_scene())
    on_ground = found["noun"] == len(NOUNS) + list(GROUND_NOUNS).index("gradient")
    assert on_ground[2:6, 4:].all()
    assert set(found["colour"][on_ground]) == {list(COLOURS).index("white")}
    assert set(found["lower colour"][on_ground]) == {list(COLOURS).index("black")}
    assert set(found["texture"][on_ground]) == {IGNORED}


def test_padding_is_grey_and_labelled_as_padding_alone() -> None:
    scene = wide_scene()
    found = answers(scene)
    padding = found["noun"] == len(NOUNS) + len(GROUND_NOUNS)
    assert np.array_equal(np.nonzero(padding.all(1))[0], [0, 1, 6, 7])
    assert padding.sum() == 4 * SIZE.patches
    assert all((found[question][padding] == IGNORED).all() for question in QUESTIONS if question != "noun")
    assert as_seen(draw(scene), SIZE)[0, 0].tolist() == list(GREY)


def test_drawn_scenes_are_taken_from_the_folder_unless_they_would_be_drawn_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = drawn_scenes(tmp_path, SIZE, count=3, seed=0)
    kept = next(tmp_path.glob("pixels*.npy"))
    before = kept.stat().st_mtime_ns
    again = drawn_scenes(tmp_path, SIZE, count=3, seed=0)
    assert kept.stat().st_mtime_ns == before
    assert again.digest == first.digest
    monkeypatch.setattr(pictures, "_DRAWN_PX", 64)
    other = drawn_scenes(tmp_path, SIZE, count=3, seed=0)
    assert kept.stat().st_mtime_ns != before
    assert other.digest != first.digest
