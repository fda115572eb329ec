"""What we promise of the tagger that is in the package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import spacy

from curation.nouns.recipe.accuracy import accuracy_on_words
from curation.nouns.recipe.conllu import Sentence
from curation.nouns.recipe.treebanks import EWT, find_split, read_split
from curation.nouns.recipe.variants import lower_cased, title_cased, without_final_stop
from curation.nouns.tagger import SHIPPED_TAGGER, Tagger, load_tagger

DATA = Path(os.environ.get("LATENTMILL_TEST_DATA", Path(__file__).parents[4] / "shared/data")) / "ud-english"


@pytest.fixture(scope="module")
def shipped() -> Tagger:
    return load_tagger(None)


@pytest.fixture(scope="module")
def ewt() -> list[Sentence]:
    if find_split(DATA, EWT, "dev") is None:
        pytest.skip("no EWT dev under LATENTMILL_TEST_DATA/ud-english")
    return read_split(DATA, EWT, "dev")


def nouns(tagger: Tagger, text: str) -> list[str]:
    return [noun.noun for noun in tagger.tag([text])[0].nouns]


def test_it_is_at_most_eight_megabytes() -> None:
    assert sum(path.stat().st_size for path in SHIPPED_TAGGER.rglob("*") if path.is_file()) <= 8_000_000


def test_it_loads_by_spacy_alone() -> None:
    code = "import sys, spacy; spacy.load(sys.argv[1]); assert 'curation' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-c", code, str(SHIPPED_TAGGER)], check=True)


def test_its_card_names_licence_and_treebanks() -> None:
    card = (SHIPPED_TAGGER / "README.md").read_text()
    assert "CC BY-SA 4.0" in card
    assert "UniversalDependencies/UD_English-EWT" in card
    assert "UniversalDependencies/UD_English-Atis" in card


def test_it_finds_the_nouns_of_captions(shipped: Tagger) -> None:
    assert nouns(shipped, "A man in a wetsuit is surfing a big wave.") == ["man", "wetsuit", "wave"]
    assert nouns(shipped, "two dogs playing with a red ball on the grass") == ["dogs", "ball", "grass"]
    assert nouns(shipped, "The image features a wooden table.") == ["image", "table"]


def test_text_without_words_has_no_nouns(shipped: Tagger) -> None:
    assert nouns(shipped, "... 12:30 – 50 % !!") == []


@pytest.mark.parametrize(
    ("variant", "upos", "f1"),
    [
        (lambda s: s, 0.945, 0.955),
        (lower_cased, 0.925, 0.945),
        (without_final_stop, 0.94, 0.955),
        (lambda s: title_cased(s, small_words=True), 0.93, 0.95),
    ],
    ids=["as it is", "lower case", "no final stop", "title case"],
)
def test_it_is_as_accurate_as_its_card_says(ewt: list[Sentence], variant: object, upos: float, f1: float) -> None:
    assert callable(variant)
    accuracy = accuracy_on_words(spacy.load(SHIPPED_TAGGER), [variant(s) for s in ewt])
    assert accuracy.upos >= upos
    assert accuracy.noun_f1 >= f1
