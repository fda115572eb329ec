import random
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.nouns.counting import CountingRules, NounCounter
from curation.nouns.curves import growth_curve
from curation.nouns.spectrum import Counted
from curation.nouns.statistics import VALID_ABOVE, noun_statistics, top_nouns
from curation.nouns.summary import NounSummary, summarise
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo
from schemas.errors import UserError

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)
Caption = list[TaggedNoun]


def counted(captions: list[Caption]) -> NounSummary:
    counter = NounCounter(RULES)
    counter.add_empty("caption", 3)
    for nouns in captions:
        counter.add_caption("caption", TaggedCaption(len(nouns) + 2, tuple(nouns)))
    counts = counter.counts()
    return summarise(RULES, counts.totals, [counts.nouns])


def zipf_captions(number: int, seed: int) -> list[Caption]:
    """Captions of 0 to 6 nouns, no noun twice, frequencies falling as 1 / rank."""
    draw = random.Random(seed)
    weights = [1 / rank for rank in range(1, 301)]
    out: list[Caption] = []
    for _ in range(number):
        ranks = set(draw.choices(range(300), weights, k=draw.randint(0, 6)))
        out.append([TaggedNoun(f"n{rank}", rank % 3 == 0) for rank in sorted(ranks)])
    return out


def tally(captions: list[Caption], counted_kind: Counted) -> dict[str, int]:
    out: dict[str, int] = {}
    for caption in captions:
        for noun in caption:
            if counted_kind is Counted.BOTH or noun.proper == (counted_kind is Counted.PROPN):
                out[noun.noun] = out.get(noun.noun, 0) + 1
    return out


def test_a_noun_is_valid_only_above_ten_occurrences() -> None:
    captions = [[TaggedNoun("ten", False)]] * 10 + [[TaggedNoun("eleven", False)]] * 11
    statistics = noun_statistics(counted(captions), "caption", Counted.BOTH)
    assert (statistics.valid, statistics.distinct, statistics.nouns) == (1, 2, 21)
    assert statistics.valid_share == 0.5
    assert statistics.captions == statistics.of_captions == 21
    assert statistics.per_caption == 1.0
    assert not statistics.expected


@pytest.mark.parametrize("kind", list(Counted))
def test_the_whole_corpus_gives_plain_counts(kind: Counted) -> None:
    captions = zipf_captions(500, seed=1)
    tf = tally(captions, kind)
    statistics = noun_statistics(counted(captions), "caption", kind)
    assert statistics.distinct == len(tf)
    assert statistics.valid == sum(n > VALID_ABOVE for n in tf.values())
    assert statistics.nouns == sum(tf.values())
    assert statistics.unseen == sum(n == 1 for n in tf.values()) / sum(tf.values())


@pytest.mark.parametrize("kind", list(Counted))
@pytest.mark.parametrize("size", [20, 150, 470])
def test_the_expectation_at_fewer_captions_is_the_mean_of_drawn_samples(kind: Counted, size: int) -> None:
    captions = zipf_captions(500, seed=2)
    expected = noun_statistics(counted(captions), "caption", kind, captions=size)
    draw = random.Random(3)
    samples = [tally(draw.sample(captions, size), kind) for _ in range(400)]
    assert expected.distinct == pytest.approx(fmean(len(tf) for tf in samples), rel=0.02)
    # Without replacement the spread is a little smaller than the binomial's, which moves the tail near 10.
    assert expected.valid == pytest.approx(fmean(sum(n > VALID_ABOVE for n in t.values()) for t in samples), abs=0.6)
    assert expected.nouns == pytest.approx(fmean(sum(tf.values()) for tf in samples), rel=0.03)
    assert expected.expected


def test_one_caption_is_expected_to_hold_its_mean_number_of_distinct_nouns() -> None:
    captions = zipf_captions(100, seed=4)
    one = noun_statistics(counted(captions), "caption", Counted.BOTH, captions=1)
    assert one.distinct == pytest.approx(sum(map(len, captions)) / 100)
    assert one.valid == pytest.approx(0, abs=1e-6)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(2, 60))
def test_distinct_nouns_never_fall_as_captions_are_added(seed: int, number: int) -> None:
    counts = counted(zipf_captions(number, seed))
    curve = growth_curve(counts, "caption", Counted.BOTH, points=8)
    assert curve[-1] == noun_statistics(counts, "caption", Counted.BOTH)
    assert all(a.distinct <= b.distinct + 1e-9 and a.captions < b.captions for a, b in pairwise(curve))


def test_a_corpus_of_the_papers_size_is_estimated_without_overflow() -> None:
    counter = NounCounter(RULES)
    counter.add_caption("caption", TaggedCaption(1, (TaggedNoun("dog", False),)))
    counts = counter.counts()
    size = 11_190_000
    totals = counts.totals.set_column(1, counts.totals.schema.field(1), [[size]])
    summary = summarise(RULES, totals, [counts.nouns])
    one_in_a_thousand = noun_statistics(summary, "caption", Counted.BOTH, size // 1000)
    assert one_in_a_thousand.distinct == pytest.approx(1e-3, rel=1e-4)


@pytest.mark.parametrize("size", [0, -1, 101])
def test_a_size_that_was_not_counted_is_a_users_error(size: int) -> None:
    counts = counted(zipf_captions(100, seed=5))
    with pytest.raises(UserError, match="only 100 were counted"):
        noun_statistics(counts, "caption", Counted.BOTH, captions=size)


def test_an_unknown_column_is_a_users_error() -> None:
    with pytest.raises(UserError, match="column raw was not counted; counted are caption"):
        noun_statistics(counted([]), "raw", Counted.BOTH)


def test_no_captions_give_zeros() -> None:
    counts = counted([])
    statistics = noun_statistics(counts, "caption", Counted.BOTH)
    assert (statistics.distinct, statistics.per_caption, statistics.valid_share, statistics.unseen) == (0, 0, 0, 0)
    assert growth_curve(counts, "caption", Counted.BOTH) == []


def test_top_nouns_come_by_frequency_then_by_name() -> None:
    counts = counted([[TaggedNoun(n, n == "p")] for n in ("b", "a", "c", "c", "p")])
    assert top_nouns(counts, "caption", Counted.BOTH, 3) == [("c", 2), ("a", 1), ("b", 1)]
    assert top_nouns(counts, "caption", Counted.PROPN, 9) == [("p", 1)]
