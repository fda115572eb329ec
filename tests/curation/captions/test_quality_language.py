import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.quality import clean
from curation.captions.quality_language import ascii_letters, foreign_share, function_words
from curation.captions.quality_text import words

ELSEWHERE = {
    "German": "Ein brauner Hund läuft über den nassen Sand. Das Licht ist weich, und hinter dem Haus stehen Bäume.",
    "French": "Un chien brun court sur le sable mouillé. La lumière est douce et il y a un bateau derrière la maison.",
    "Italian": "Un cane corre sulla sabbia vicino al mare. La luce è morbida e dietro la casa ci sono tre alberi.",
    "Indonesian": "Seekor anjing yang besar berlari di pantai. Ada sebuah rumah dengan pohon dan perahu di dekat laut.",
}


@pytest.mark.parametrize("language", sorted(ELSEWHERE))
def test_running_text_of_other_languages_is_told_from_english(language: str) -> None:
    text = ELSEWHERE[language]
    assert foreign_share(words(text)) > 0.9
    assert clean(text, "stop").status == "non_english"


def test_an_english_caption_that_turns_to_another_language_is_found() -> None:
    english = "A brown dog runs over the wet sand while its owner waits near the old wooden house. "
    assert clean(english + ELSEWHERE["German"], "stop").status == "non_english"
    assert clean(english + "Next to it a sign says Zimmer frei in red letters.", "stop").status == "ok"


def test_words_without_function_words_pass_because_nothing_speaks_against_them() -> None:
    assert clean("Kubota tractor, orange, 1987, Osaka Prefecture", "stop").status == "ok"


def test_peoples_english_captions_are_english(data_folder: Path) -> None:
    with gzip.open(data_folder / "captions-human" / "coco-val2017.dev.jsonl.gz", "rt") as file:
        captions = [caption for line in file for caption in json.loads(line)["captions"]]
    wrong = [caption for caption in captions[:3000] if clean(caption, "stop").status == "non_english"]
    assert wrong == []


@given(st.text(max_size=200))
def test_every_measure_is_a_share(text: str) -> None:
    assert 0 <= ascii_letters(text) <= 1
    assert 0 <= function_words(words(text)) <= 1
    assert 0 <= foreign_share(words(text)) <= 1
