import random
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from curation.nouns.recipe.caption_words import CAPTION_WORDS
from curation.nouns.recipe.conllu import Sentence
from curation.nouns.recipe.variants import (
    VariantRates,
    joined,
    lower_cased,
    title_cased,
    training_texts,
    upper_cased,
    with_caption_words,
    with_unknown_words,
    without_final_stop,
)


def plain(words: tuple[str, ...], tags: tuple[str, ...], document: str = "d") -> Sentence:
    return Sentence(words, (True,) * len(words), tags, ("X",) * len(words), document)


def sentence(tagged: str) -> Sentence:
    words, tags = zip(*(pair.rsplit("/", 1) for pair in tagged.split()), strict=True)
    return plain(words, tags)


DOG = sentence("a/DET dog/NOUN of/ADP Anna/PROPN sleeps/VERB ./PUNCT")


def test_a_title_capitalises_every_word_or_all_but_the_small_ones() -> None:
    assert title_cased(DOG, small_words=False).words == ("A", "Dog", "Of", "Anna", "Sleeps", ".")
    assert title_cased(DOG, small_words=True).words == ("A", "Dog", "of", "Anna", "Sleeps", ".")


def test_a_clitic_keeps_its_case_in_a_title() -> None:
    spaced = plain(("the", "man", "'s", "hat"), ("DET", "NOUN", "PART", "NOUN"))
    clitic = replace(spaced, spaces=(True, False, True, True))
    assert title_cased(clitic, small_words=False).words == ("The", "Man", "'s", "Hat")


def test_only_a_final_stop_is_dropped() -> None:
    assert without_final_stop(DOG).words[-1] == "sleeps"
    assert without_final_stop(without_final_stop(DOG)) == without_final_stop(DOG)
    assert without_final_stop(sentence("./PUNCT")).words == (".",)


def test_an_unknown_word_keeps_first_letter_suffix_and_shape() -> None:
    changed = with_unknown_words(sentence("Strawberries/NOUN Red/ADJ 24/7/NUM"), Counter(), 1e9, random.Random(0))
    word = changed.words[0]
    assert word != "Strawberries"
    assert (word[0], word[-3:], len(word), word.istitle()) == ("S", "ies", len("Strawberries"), True)
    assert changed.words[1] != "Red"
    assert changed.words[1].istitle()
    assert changed.words[2] == "24/7"


def test_a_frequent_word_is_kept() -> None:
    frequent = sentence("something/PRON")
    changed = [with_unknown_words(frequent, Counter(something=10**9), 0.25, random.Random(i)) for i in range(50)]
    assert set(changed) == {frequent}


WORDS = st.lists(st.sampled_from(DOG.words), min_size=1, max_size=6)
SENTENCES = st.lists(
    st.builds(
        lambda words, document: plain(tuple(words), ("X",) * len(words), document),
        WORDS,
        st.sampled_from(["a", "b"]),
    ),
    max_size=12,
)


@given(SENTENCES, st.integers(0, 100))
def test_a_pass_keeps_every_word_in_order_but_case_and_final_stops(sentences: list[Sentence], seed: int) -> None:
    texts = list(training_texts(sentences, VariantRates(), random.Random(seed)))
    kept = [w.lower() for t in texts for w in t.words if w != "."]
    assert kept == [w.lower() for s in sentences for w in s.words if w != "."] or any(len(t.words) == 1 for t in texts)
    assert all(len(t.words) == len(t.tags) == len(t.spaces) for t in texts)


@given(SENTENCES)
def test_sentences_of_different_documents_are_never_joined(sentences: list[Sentence]) -> None:
    rates = VariantRates(lower=0, title=0, upper=0, no_stop=0, joined=1)
    total = sum(len(t.words) for t in training_texts(sentences, rates, random.Random(0)))
    assert total == sum(len(s.words) for s in sentences)
    one_each = [plain(("w",), ("X",), str(i)) for i in range(5)]
    assert len(list(training_texts(one_each, rates, random.Random(0)))) == 5


def test_the_same_seed_gives_the_same_texts() -> None:
    sentences = [DOG] * 20
    rates = VariantRates(rare_word_scale=0.5)
    assert list(training_texts(sentences, rates, random.Random(3))) == list(
        training_texts(sentences, rates, random.Random(3))
    )


def test_joined_sentences_are_parted_by_a_space() -> None:
    close = replace(plain(("Go", "."), ("VERB", "PUNCT")), spaces=(False, False))
    assert joined([close, close]).text.rstrip() == "Go. Go."


def test_caption_words_take_the_place_of_words_of_their_penn_tag_and_casing() -> None:
    words, penn_tags = ("Trees", "FALL", "shows", "Anna"), ("NNS", "NN", "VBZ", "NNP")
    original = replace(plain(words, ("NOUN", "NOUN", "VERB", "PROPN")), penn_tags=penn_tags)
    rates = VariantRates(caption_words=1, caption_verbs=1)
    changed = with_caption_words(original, rates, random.Random(0))
    assert changed.tags == original.tags
    for i, tag in enumerate(("NNS", "NN", "VBZ")):
        assert changed.words[i].lower() in CAPTION_WORDS[tag]
    assert changed.words[0].istitle()
    assert changed.words[1].isupper()
    assert changed.words[2].islower()
    assert changed.words[3] == "Anna"
    assert with_caption_words(original, VariantRates(), random.Random(0)) == original


def test_an_auxiliary_never_gives_way_to_a_caption_verb() -> None:
    has = replace(plain(("has",), ("AUX",)), penn_tags=("VBZ",))
    rates = VariantRates(caption_words=1, caption_verbs=1)
    assert with_caption_words(has, rates, random.Random(0)) == has


def test_casings_keep_the_tags() -> None:
    assert lower_cased(DOG).tags == upper_cased(DOG).tags == DOG.tags
    assert upper_cased(DOG).words[1] == "DOG"
