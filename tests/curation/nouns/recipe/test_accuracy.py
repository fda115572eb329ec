from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from curation.nouns.recipe.accuracy import Accuracy, accuracy_on_words, nouns_in_text
from curation.nouns.recipe.conllu import Sentence


@pytest.fixture
def nlp(lexicon: Path) -> Language:
    return spacy.load(lexicon)


def test_the_two_kinds_of_noun_are_one_answer_to_is_it_a_noun(nlp: Language) -> None:
    words = ("Rex", "dog", "cat", "tree", "Paris")
    gold = Sentence(words, (True,) * 5, ("NOUN", "NOUN", "VERB", "NOUN", "PROPN"), ("X",) * 5, "d")
    found = accuracy_on_words(nlp, [gold])
    assert found == Accuracy(words=5, right=2, both_noun=3, gold_noun=4, found_noun=4)
    assert (found.upos, found.noun_precision, found.noun_recall, found.noun_f1) == (0.4, 0.75, 0.75, 0.75)


def test_the_words_are_the_gold_words_whatever_the_tokeniser_would_do(nlp: Language) -> None:
    gold = Sentence(("dog,", "cat"), (True, True), ("X", "NOUN"), ("X", "X"), "d")
    assert accuracy_on_words(nlp, [gold]).words == 2


def test_in_plain_text_a_noun_counts_only_with_the_gold_bounds(nlp: Language) -> None:
    gold = Sentence(("dog", "cat-ball"), (True, True), ("NOUN", "NOUN"), ("X", "X"), "d")
    found = nouns_in_text(nlp, [gold])
    assert (found.both_noun, found.gold_noun, found.found_noun) == (1, 2, 3)


def test_nothing_to_measure_gives_zeros() -> None:
    empty = Accuracy(0, 0, 0, 0, 0)
    assert (empty.upos, empty.noun_precision, empty.noun_recall, empty.noun_f1) == (0, 0, 0, 0)
