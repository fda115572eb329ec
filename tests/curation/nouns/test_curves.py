import random
from itertools import pairwise

import pytest

from curation.nouns.counting import CountingRules, NounCounter
from curation.nouns.curves import growth_curve, log_spaced, rank_frequency
from curation.nouns.spectrum import Counted
from curation.nouns.statistics import noun_statistics
from curation.nouns.summary import NounSummary, summarise
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo
from schemas.errors import UserError

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)


def counted(occurrences: dict[str, int]) -> NounSummary:
    """Captions of one noun each."""
    counter = NounCounter(RULES)
    counter.add_empty("caption", 0)
    for noun, n in occurrences.items():
        for _ in range(n):
            counter.add_caption("caption", TaggedCaption(1, (TaggedNoun(noun, False),)))
    counts = counter.counts()
    return summarise(RULES, counts.totals, [counts.nouns])


def test_log_spaced_numbers_begin_at_one_and_end_at_the_last() -> None:
    assert log_spaced(0, 5) == []
    assert log_spaced(1, 5) == [1]
    assert log_spaced(10_000, 5) == [1, 10, 100, 1000, 10_000]
    assert log_spaced(3, 50) == [1, 2, 3]


def test_growth_ends_with_all_captions_and_has_both_vn_and_dn() -> None:
    counts = counted({f"n{i}": i % 20 + 1 for i in range(60)})
    curve = growth_curve(counts, "caption", points=6)
    assert curve[-1] == noun_statistics(counts, "caption", Counted.BOTH)
    assert (curve[0].captions, curve[0].distinct) == (1, pytest.approx(1))
    assert all(a.distinct <= b.distinct and a.valid <= b.valid + 1e-9 for a, b in pairwise(curve))


def test_rank_and_frequency_are_those_of_sorted_occurrences() -> None:
    draw = random.Random(2)
    occurrences = {f"n{i}": draw.randint(1, 40) for i in range(200)}
    found = rank_frequency(counted(occurrences), "caption", points=30)
    ordered = sorted(occurrences.values(), reverse=True)
    assert all(n == ordered[rank - 1] for rank, n in found.points)
    assert (found.points[0][0], found.points[-1][0]) == (1, 200)
    assert found.captions == sum(ordered)


def test_zipfs_law_has_a_slope_of_minus_one() -> None:
    found = rank_frequency(counted({f"n{r}": round(2000 / r) for r in range(1, 201)}), "caption")
    assert found.slope == pytest.approx(-1, abs=0.02)
    assert found.fitted == (10, 200)


def test_too_few_nouns_have_no_slope_and_none_have_no_points() -> None:
    assert rank_frequency(counted({f"n{i}": 1 for i in range(28)}), "caption").slope is None
    empty = rank_frequency(counted({}), "caption")
    assert (empty.points, empty.slope) == ((), None)
    assert growth_curve(counted({}), "caption") == []


def test_a_column_that_was_not_counted_is_a_users_error() -> None:
    with pytest.raises(UserError, match="column raw was not counted"):
        rank_frequency(counted({}), "raw")
