import dataclasses
import statistics

import pytest

from curation.scenes.alignment import AlignmentScore, Reading, Seen, asked_in, asked_of, score_set
from curation.scenes.scene import scene
from curation.scenes.truth import truth_of

HEART = Seen("heart", "red", "large", "top", "left")
BOAT = Seen("boat", "black", "small", "bottom", "right")
ASKED = Reading((HEART, BOAT), "plain", ("white",))
OTHER = Reading((Seen("moon", "blue", "large", "middle", "centre"),), "meadow", ())


def told(*seen: Seen, unrecognised: int = 0) -> AlignmentScore:
    """The score of a picture that shows these, beside one that is as asked."""
    return score_set([ASKED, OTHER], [Reading(seen, "plain", ("white",), unrecognised), OTHER])


def rights(score: AlignmentScore) -> list[int]:
    """How many are right of each share, less those of the picture that is as asked."""
    return [getattr(score.aligned, field.name).right - 1 for field in dataclasses.fields(score.aligned)]


def test_pictures_as_they_were_asked_for_are_right_in_everything() -> None:
    score = told(HEART, BOAT)
    assert rights(score) == [2, 2, 2, 2, 1, 1]
    assert score.aligned.right.share == 1
    assert score.chance.drawn.right == score.chance.ground.right == 0


def test_each_mistake_costs_what_it_is_about_and_no_more() -> None:
    assert rights(told(HEART, dataclasses.replace(BOAT, colour="green"))) == [2, 1, 2, 1, 0, 1]
    assert rights(told(HEART, dataclasses.replace(BOAT, column="left"))) == [2, 2, 1, 1, 0, 1]
    assert rights(told(HEART)) == [1, 1, 1, 1, 0, 1]
    assert rights(told()) == [0, 0, 0, 0, 0, 1]


def test_what_was_not_asked_for_spoils_the_whole_alone() -> None:
    assert rights(told(HEART, BOAT, Seen("cup", "pink", "small", "middle", "left"))) == [2, 2, 2, 2, 0, 1]
    assert rights(told(HEART, BOAT, unrecognised=1)) == [2, 2, 2, 2, 0, 1]


def test_colour_and_place_have_to_be_right_of_the_same_thing() -> None:
    elsewhere, otherwise = dataclasses.replace(HEART, row="bottom"), dataclasses.replace(HEART, colour="pink")
    assert rights(told(elsewhere, otherwise)) == [1, 1, 1, 0, 0, 1]


def test_chance_is_what_pictures_score_against_the_scenes_of_others() -> None:
    score = score_set([ASKED] * 6, [ASKED] * 6)
    assert score.chance.right.share == 1
    mixed = score_set([ASKED, OTHER] * 8, [ASKED, OTHER] * 8)
    assert 0.3 < mixed.chance.right.share < 0.7


def test_pictures_of_one_prompt_do_not_tell_chance_of_one_another() -> None:
    prompts = [number // 6 for number in range(12)]
    asked = [(ASKED, OTHER)[number] for number in prompts]
    assert score_set(asked, asked).chance.right.share > 0.3
    assert score_set(asked, asked, prompts=prompts).chance.right.share == 0
    with pytest.raises(ValueError, match="12 scenes of 1 prompts"):
        score_set(asked, asked, prompts=[0] * 12)


@pytest.mark.parametrize("drawn", [1, 2], ids=["as asked", "anything"])
def test_the_error_of_chance_knows_that_shuffles_show_the_same_pictures_again(drawn: int) -> None:
    scores = []
    for number in range(100):
        asked, seen = ([asked_of(scene(seed, 1000 * number + one)) for one in range(40)] for seed in (1, drawn))
        scores.append(score_set(asked, seen).chance)
    for name in ("drawn", "ground"):
        found = [getattr(chance, name) for chance in scores]
        spread = statistics.stdev(one.share for one in found)
        assert statistics.fmean(one.error for one in found) == pytest.approx(spread, rel=0.2)


def test_the_error_is_that_of_pictures_since_things_in_one_go_together() -> None:
    blank = Reading((), "plain", ("white",))
    score = score_set([ASKED] * 100, [ASKED, blank] * 50)
    assert score.aligned.drawn.share == 0.5
    assert score.aligned.drawn.error == pytest.approx(0.05)


def test_what_is_asked_is_the_same_of_a_scene_and_of_its_truth_on_disk() -> None:
    for number in range(20):
        one = scene(0, number)
        assert asked_in(truth_of(one)) == asked_of(one)


def test_pictures_and_scenes_have_to_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 scenes of 2 prompts were asked for and 1"):
        score_set([ASKED, OTHER], [ASKED])
