import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.quality import clean
from curation.nouns.tagger import load_tagger
from curation.scenes.alt_text import alt_text
from curation.scenes.scene import Scene, scene
from curation.scenes.sentences import PLACES, SIZE_WORDS, describe
from curation.scenes.vocabulary import COLOURS, TEXTURES, WORLD_NOUNS, world_nouns_in
from schemas.status import CaptionStatus

SCENES = st.builds(scene, st.integers(0, 3), st.integers(0, 2**40))
IMAGES = ("image", "picture", "scene")


@given(SCENES, st.integers(0, 5))
def test_exactly_the_nouns_that_are_there_are_said(one: Scene, variant: int) -> None:
    assert world_nouns_in(describe(one, variant=variant)) == one.nouns


@given(SCENES)
def test_each_thing_is_introduced_with_its_colour_place_size_and_texture_and_with_no_others(one: Scene) -> None:
    text = describe(one)
    sentences = re.split(r"(?<=\.) ", text)
    for thing in one.things:
        at = next(i for i, s in enumerate(sentences) if re.search(rf"\b{thing.noun}\b", s))
        said = sentences[at]
        if re.match(r"It is (?:small|little|large|big)\b", sentences[at + 1]):
            said += " " + sentences[at + 1]
        words = re.findall("[a-z]+", said.lower())
        assert {word for word in words if word in COLOURS} == {thing.colour}
        assert {size for size, ways in SIZE_WORDS.items() if set(ways) & set(words)} == {thing.size}
        texture = {"stripes": "striped", "dots": "dotted", "checks": "checked"}
        told = {texture.get(word, word) for word in words} & set(TEXTURES)
        assert told in ({thing.texture}, set() if thing.texture == "plain" else {thing.texture})
        assert places_in(said) == {(thing.row, thing.column)}


def places_in(sentence: str) -> set[tuple[str, str]]:
    phrases = {form.format(image=image): place for place, forms in PLACES.items() for form in forms for image in IMAGES}
    return {place for phrase, place in phrases.items() if phrase in sentence.lower()}


def test_no_way_of_saying_a_place_is_part_of_another_ones() -> None:
    for place, forms in PLACES.items():
        for form in forms:
            assert places_in(form.format(image="image")) == {place}


@given(SCENES)
def test_relations_that_are_said_hold(one: Scene) -> None:
    ways = {
        "left of": r"(?:left of|on the left of)",
        "right of": r"(?:right of|on the right of)",
        "above": "(?:above|higher than)",
        "below": "(?:below|lower than)",
    }
    nouns = [thing.noun for thing in one.things]
    held = {(nouns[r.one], r.kind, nouns[r.other]) for r in one.relations}
    either = "|".join(nouns)
    for kind, way in ways.items():
        for found in re.finditer(
            rf"({either}) (?:is|stands|appears)[a-z ]* {way} the (?:[a-z]+ )?({either})", describe(one)
        ):
            assert (found[1], kind, found[2]) in held


@pytest.fixture(scope="module")
def descriptions() -> list[tuple[Scene, str]]:
    return [(one, describe(one)) for one in (scene(5, number) for number in range(300))]


def test_the_shipped_tagger_finds_every_noun_and_no_noun_of_the_world_beside(
    descriptions: list[tuple[Scene, str]],
) -> None:
    tagged = load_tagger(None).tag([text for _, text in descriptions])
    for (one, text), caption in zip(descriptions, tagged, strict=True):
        assert {noun.noun for noun in caption.nouns} & WORLD_NOUNS == one.nouns, text


def test_the_quality_rules_find_nothing_wrong(descriptions: list[tuple[Scene, str]]) -> None:
    judged = [clean(text, "stop") for _, text in descriptions]
    assert {caption.status for caption in judged} == {CaptionStatus.OK}
    assert sum(bool(set(caption.flags) - {"stock_opening"}) for caption in judged) < len(judged) / 20


def test_descriptions_are_no_template(descriptions: list[tuple[Scene, str]]) -> None:
    openings = {tuple(text.split()[:3]) for _, text in descriptions}
    assert len({text for _, text in descriptions}) == len(descriptions)
    assert len(openings) > 60
    assert len({describe(descriptions[0][0], variant=variant) for variant in range(20)}) > 15


def test_alt_texts_are_short_partly_true_sometimes_wrong_and_sometimes_empty() -> None:
    told = [(one, alt_text(one)) for one in (scene(6, number) for number in range(600))]
    kinds = [alt.kind for _, alt in told]
    assert all(kinds.count(kind) > 15 for kind in ("partial", "shop", "file", "wrong", "noise", "empty"))
    for one, alt in told:
        named = world_nouns_in(alt.text)
        if alt.kind in ("partial", "shop", "file"):
            assert named
            assert named <= one.nouns
        elif alt.kind == "wrong":
            assert not named & one.nouns
        else:
            assert not named & one.nouns
            assert (alt.text == "") is (alt.kind == "empty")
