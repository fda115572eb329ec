import numpy as np

from curation.demo.llava.model import LlavaSize
from curation.demo.llava.pictures import IGNORED, QUESTIONS, as_seen, patch_labels
from curation.demo.llava.recolour import has_plain_ground, recoloured, without_colours
from curation.scenes.drawing import draw
from curation.scenes.scene import scene

SIZE = LlavaSize()
SCENES = [scene(0, number) for number in range(40)]
PIXELS = np.stack([as_seen(draw(one, short_px=64), SIZE) for one in SCENES])
LABELS = patch_labels(SCENES, SIZE)
CHANGED = np.arange(len(SCENES)) % 2 == 0


def test_only_grounds_of_named_colours_may_change_theirs() -> None:
    expected = [one.ground.kind in ("plain", "gradient") for one in SCENES]
    assert 0 < sum(expected) < len(expected)
    assert has_plain_ground(LABELS).tolist() == expected


def test_changed_pictures_keep_their_shapes_and_no_other_is_touched() -> None:
    other = recoloured(PIXELS, CHANGED, np.random.default_rng(0))
    assert np.array_equal(other[~CHANGED], PIXELS[~CHANGED])
    for before, after in zip(PIXELS[CHANGED].astype(int), other[CHANGED].astype(int), strict=True):
        assert not np.array_equal(before, after)
        before, after = (np.sort(picture - picture[0, 0], axis=-1) for picture in (before, after))
        assert np.array_equal(before, after) or np.array_equal(before, np.sort(-after, axis=-1))


def test_changed_pictures_are_asked_for_no_colour_and_for_all_else() -> None:
    asked = without_colours(LABELS, CHANGED)
    assert np.array_equal(asked[~CHANGED], LABELS[~CHANGED])
    for index, question in enumerate(QUESTIONS):
        if question in ("colour", "lower colour"):
            assert (asked[CHANGED, index] == IGNORED).all()
        elif question != "noun":
            assert np.array_equal(asked[CHANGED, index], LABELS[CHANGED, index])
    differs = asked[:, 0] != LABELS[:, 0]
    assert set(LABELS[:, 0][differs]) <= {QUESTIONS["noun"] - 1}
