import pytest

from curation.demo.llava.measure import shares_of, things_told
from curation.scenes.scene import Ground, Scene, Split, Thing, scene
from curation.scenes.sentences import describe

CAR = Thing("car", "red", "plain", "large", 0.2, 0.2, 0.1)
TREE = Thing("tree", "green", "striped", "small", 0.8, 0.8, 0.1)
SCENE = Scene(Split.TEST, 0, 0, (CAR, TREE), Ground("plain", ("white",)), "flat", 128, 128)
TRUE = (
    "A large red car stands in the top left corner. At the lower right there is a green tree. It is small and striped. "
    "The background is plain white."
)


def test_descriptions_are_wholly_true_in_all_their_forms() -> None:
    scenes = [scene(3, number, split=split) for split in Split for number in range(100)]
    assert set(shares_of(scenes, [describe(one) for one in scenes]).values()) == {1.0}


@pytest.mark.parametrize(
    ("said", "instead", "share", "value"),
    [
        ("red car", "red boat", "noun precision", 2 / 3),
        ("red car", "red boat", "noun recall", 2 / 3),
        ("The background is plain white.", "", "noun recall", 2 / 3),
        ("red car", "blue car", "colour", 0.5),
        ("red car", "car", "colour", 0.5),
        ("striped", "dotted", "texture", 0.5),
        ("large", "small", "size", 0.5),
        ("in the top left corner", "in the bottom left corner", "row", 0.5),
        ("in the top left corner", "in the top right corner", "column", 0.5),
    ],
)
def test_what_is_said_wrongly_or_not_at_all_counts_as_wrong(said: str, instead: str, share: str, value: float) -> None:
    assert shares_of([SCENE], [TRUE])[share] == 1.0
    assert shares_of([SCENE], [TRUE.replace(said, instead)])[share] == pytest.approx(value)


def test_a_sentence_about_two_things_introduces_neither() -> None:
    assert dict(things_told("The car in the top left corner is left of the tree.")) == {}


@pytest.mark.parametrize(
    ("told", "true"),
    [
        ("The car stands left of the tree.", 1.0),
        ("The tree is placed lower than the car.", 1.0),
        ("The tree stands left of the car.", 0.0),
        ("The car is above the car.", 0.0),
        ("The car stands left of the tree. The tree is above the car.", 0.5),
    ],
)
def test_relations_that_are_told_are_held_against_the_truth(told: str, true: float) -> None:
    assert shares_of([SCENE], [f"{TRUE} {told}"])["relations"] == true


def test_a_sentence_told_twice_is_seen() -> None:
    assert shares_of([SCENE], [TRUE])["nothing said twice"] == 1.0
    assert shares_of([SCENE], [f"{TRUE} The background is plain white."])["nothing said twice"] == 0.0
