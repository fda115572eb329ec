import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.select.distribution import noun_distribution
from curation.select.join import WordLists
from curation.select.noun_cap import keep_under_cap, noun_counts
from curation.select.recipe import NounCap

captions = st.lists(st.lists(st.sampled_from("abcdefg"), unique=True, max_size=5), min_size=1, max_size=30)


def lists_of(captions: list[list[str]], cut: int = 1000) -> WordLists:
    """The word lists of captions, in parts of `cut` captions."""
    words = sorted({word for caption in captions for word in caption})
    parts = []
    for start in range(0, len(captions), cut):
        some = captions[start : start + cut]
        rows = np.arange(start, start + len(some))
        lengths = np.array([len(caption) for caption in some], np.int32)
        flat = np.array([words.index(word) for caption in some for word in caption], np.int32)
        parts.append((rows, lengths, flat))
    return WordLists(tuple(words), tuple(parts))


def ids(count: int) -> pa.Array:
    return pa.array([f"s\0{i:05d}" for i in range(count)], pa.large_string())


def keep(captions: list[list[str]], rule: NounCap, cut: int = 1000, alive: np.ndarray | None = None) -> np.ndarray:
    everything = np.ones(len(captions), np.bool_)
    return keep_under_cap(lists_of(captions, cut), rule, ids(len(captions)), everything if alive is None else alive)


@given(captions, st.integers(1, 6), st.integers(0, 4), st.integers(0, 3))
def test_every_noun_keeps_all_its_captions_or_at_least_the_cap(
    captions: list[list[str]], cap: int, skip_below: int, seed: int
) -> None:
    kept = keep(captions, NounCap("n", cap, "llava", skip_below, seed))
    counts = {word: sum(word in caption for caption in captions) for word in "abcdefg"}
    for word, count in counts.items():
        left = sum(word in caption for caption, stays in zip(captions, kept, strict=True) if stays)
        if count >= skip_below:
            assert left >= min(count, cap)
    needed = {word for word, count in counts.items() if count >= skip_below}
    assert all(needed & set(caption) for caption, stays in zip(captions, kept, strict=True) if stays)
    assert kept.sum() <= sum(min(counts[word], cap) for word in needed)


@given(captions, st.integers(1, 6), st.sampled_from(["llava", "metaclip"]), st.integers(1, 7))
def test_how_rows_are_cut_into_parts_does_not_show(captions: list[list[str]], cap: int, rule: str, cut: int) -> None:
    settings = NounCap("n", cap, rule, 2, 1)
    assert (keep(captions, settings) == keep(captions, settings, cut)).all()


def test_of_a_frequent_noun_exactly_the_cap_stays_and_the_seed_says_which() -> None:
    many = [["sky"]] * 5000
    first = keep(many, NounCap("n", 100, seed=1))
    assert first.sum() == 100
    assert (first == keep(many, NounCap("n", 100, seed=1))).all()
    other = keep(many, NounCap("n", 100, seed=2))
    assert other.sum() == 100
    assert (first & other).sum() < 20


def test_few_candidates_below_the_first_bound_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = keep([["sky"]] * 500, NounCap("n", 20))
    monkeypatch.setattr("curation.select.noun_cap._SLACK", -3.0)
    assert (keep([["sky"]] * 500, NounCap("n", 20)) == usual).all()


def test_metaclip_keeps_as_many_as_its_formula_expects() -> None:
    captions = [["sky"]] * 20_000 + [["sky", "boat"]] * 2_000 + [["newt"]] * 50 + [[]] * 30
    kept = keep(captions, NounCap("n", 500, "metaclip"))
    assert kept[22_000:22_050].all()  # rarer than the cap: every one
    assert not kept[22_050:].any()  # no noun, no chance
    for part, chance in (
        (kept[:20_000], 500 / 22_000),
        (kept[20_000:22_000], 1 - (1 - 500 / 22_000) * (1 - 500 / 2_000)),
    ):
        deviation = math.sqrt(len(part) * chance * (1 - chance))
        assert abs(part.sum() - len(part) * chance) < 4 * deviation


def test_only_samples_that_are_left_count() -> None:
    alive = np.arange(1000) < 80
    assert (keep([["sky"]] * 1000, NounCap("n", 100), alive=alive) == alive).all()


def test_a_lone_sample_stays_under_metaclip_whatever_else_there_is() -> None:
    """The draw of a sample does not depend on its neighbours."""
    captions = [["sky"]] * 300
    settings = NounCap("n", 100, "metaclip")
    kept, lists = keep(captions, settings), lists_of(captions)
    shuffled = WordLists(lists.words, tuple((rows[::-1], lengths, words) for rows, lengths, words in lists.parts))
    assert (keep_under_cap(shuffled, settings, ids(300), np.ones(300, np.bool_)) == kept).all()


def test_a_distribution_is_told_by_counts_of_captions() -> None:
    lists = lists_of([["sky", "boat"], ["sky"], ["sky", "newt"], []])
    told = noun_distribution(lists, np.array([True, True, True, True]), cap=1)
    assert (told.samples, told.distinct, told.mentions) == (4, 3, 5)
    assert told.entropy_bits == pytest.approx(-(0.6 * math.log2(0.6) + 0.4 * math.log2(0.2)), abs=1e-6)
    assert (told.top_share, told.under_cap) == (1.0, pytest.approx(2 / 3, abs=1e-6))
    assert told.quantiles == {"50%": 1, "90%": 3, "99%": 3, "100%": 3}
    assert told.top == (("sky", 3), ("boat", 1), ("newt", 1))
    nothing = noun_distribution(lists, np.zeros(4, np.bool_), cap=1)
    assert (nothing.distinct, nothing.entropy_bits, nothing.top) == (0, 0.0, ())


def test_words_of_rows_that_are_no_sample_do_not_count() -> None:
    lists = WordLists(("sky",), ((np.array([-1, 0]), np.array([1, 1], np.int32), np.array([0, 0], np.int32)),))
    assert noun_counts(lists, np.array([True])).tolist() == [1]
