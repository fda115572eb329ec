import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.scenes.scene import Scene, Split, scene
from curation.scenes.truth import box_of, truth_of
from curation.scenes.vocabulary import COLOURS, NOUNS, TEXTURES, is_held_out, stands_out

SCENES = st.builds(
    lambda number, seed, split: scene(seed, number, split=split),
    st.integers(0, 2**40),
    st.integers(0, 3),
    st.sampled_from(Split),
)


@given(SCENES)
def test_things_lie_within_the_picture_apart_from_one_another_and_where_their_words_say(one: Scene) -> None:
    for thing in one.things:
        left, top, right, bottom = box_of(thing, one)
        assert min(left, top) >= 0
        assert max(right, bottom) <= 1
        assert {"left": 0, "centre": 1, "right": 2}[thing.column] == int((left + right) / 2 * 3)
        assert {"top": 0, "middle": 1, "bottom": 2}[thing.row] == int((top + bottom) / 2 * 3)
    for a, b in itertools.combinations((box_of(thing, one) for thing in one.things), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


@given(SCENES)
def test_no_noun_comes_twice_and_every_thing_stands_out_from_the_ground(one: Scene) -> None:
    assert len({thing.noun for thing in one.things}) == len(one.things)
    assert one.things[0].size == "large" or all(thing.size == "small" for thing in one.things)
    assert all(stands_out(COLOURS[thing.colour], band) for thing in one.things for band in one.ground.bands)


@given(SCENES)
def test_colours_kept_back_are_seen_in_the_novel_split_alone_and_there_on_the_main_thing(one: Scene) -> None:
    held_out = [is_held_out(thing.noun, thing.colour) for thing in one.things]
    assert held_out == [one.split is Split.NOVEL, *[False] * (len(one.things) - 1)]


def test_one_colour_of_each_noun_is_kept_back_and_no_colour_for_half_of_them() -> None:
    kept = {noun: [colour for colour in COLOURS if is_held_out(noun, colour)] for noun in NOUNS}
    assert all(len(colours) == 1 for colours in kept.values())
    assert all(1 <= sum(colour in colours for colours in kept.values()) <= 4 for colour in COLOURS)


@given(SCENES)
def test_relations_hold_both_ways_and_agree_with_the_centres(one: Scene) -> None:
    turned = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    found = {(relation.one, relation.kind, relation.other) for relation in one.relations}
    assert found == {(j, turned[kind], i) for i, kind, j in found}
    for i, kind, j in found:
        a, b = one.things[i], one.things[j]
        assert {"left of": a.x < b.x, "right of": a.x > b.x, "above": a.y < b.y, "below": a.y > b.y}[kind]


def test_every_word_of_the_vocabulary_is_used() -> None:
    scenes = [scene(0, number) for number in range(400)]
    things = [thing for one in scenes for thing in one.things]
    assert {thing.noun for thing in things} == set(NOUNS)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.texture for thing in things} == set(TEXTURES)
    assert len({(thing.row, thing.column) for thing in things}) == 9
    assert len({one.ground.kind for one in scenes}) == 6
    assert {len(one.things) for one in scenes} == {1, 2, 3}


def test_the_number_of_things_can_be_asked_for() -> None:
    assert {len(scene(0, number, things=2).things) for number in range(20)} == {2}


@pytest.mark.parametrize("split", Split)
def test_a_scene_is_a_function_of_its_split_seed_and_number(split: Split) -> None:
    assert scene(3, 7, split=split) == scene(3, 7, split=split)
    others = [scene(3, 8, split=split), scene(4, 7, split=split)]
    assert scene(3, 7, split=split).things not in [other.things for other in others]


@given(SCENES)
def test_the_truth_written_down_is_that_of_the_record(one: Scene) -> None:
    truth = truth_of(one)
    assert truth["class"] == NOUNS[one.label] == one.things[0].noun
    assert [(thing["noun"], thing["colour"], thing["row"]) for thing in truth["things"]] == [
        (thing.noun, thing.colour, thing.row) for thing in one.things
    ]
    assert set(truth["nouns"]) == one.nouns
