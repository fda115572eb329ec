import math
import random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from noun_counts import RULES, counted

from curation.nouns.compare import Comparison, compare_columns, log_odds_z
from curation.nouns.spectrum import Counted
from curation.nouns.summary import summarise
from schemas.errors import UserError


def compared(
    before: dict[str, int], after: dict[str, int], kind: Counted = Counted.BOTH, limit: int = 20
) -> Comparison:
    counts = counted({"b": before, "a": after})
    rows = {column: blocks(counts.nouns.filter(pc.equal(counts.nouns["column"], column))) for column in "ba"}
    summary = summarise(RULES, counts.totals, [counts.nouns])
    return compare_columns(summary, "b", "a", rows["b"], rows["a"], kind, limit)


def blocks(table: pa.Table) -> list[pa.Table]:
    return [table.slice(start, 3) for start in range(0, table.num_rows, 3)]


def test_z_is_the_formula_of_the_paper() -> None:
    y_b, y_a, n_b, n_a = 30, 90, 1000, 2000
    alpha = 500 * (y_b + y_a) / (n_b + n_a)
    delta = math.log((y_a + alpha) / (n_a + 500 - y_a - alpha)) - math.log((y_b + alpha) / (n_b + 500 - y_b - alpha))
    expected = delta / math.sqrt(1 / (y_a + alpha) + 1 / (y_b + alpha))
    assert log_odds_z(np.array([y_b]), np.array([y_a]), n_b, n_a)[0] == pytest.approx(expected)


def test_equal_shares_are_no_change_however_many_captions_there_are() -> None:
    same = log_odds_z(np.array([10, 200]), np.array([100, 2000]), 1000, 10_000)
    assert same == pytest.approx(0, abs=0.05)


def test_swapping_the_columns_swaps_gained_and_lost() -> None:
    old, new = {"dog": 300, "cat": 20, "car": 400}, {"dog": 20, "cat": 300, "car": 400}
    one, other = compared(old, new), compared(new, old)
    assert [n.noun for n in one.gained] == [n.noun for n in other.lost] == ["cat"]
    assert [n.noun for n in one.lost] == [n.noun for n in other.gained] == ["dog"]
    assert one.gained[0].z == pytest.approx(-other.lost[0].z)


def test_a_change_tells_occurrences_and_rates_per_thousand_captions() -> None:
    found = compared({"dog": 500}, {"dog": 500, "image": 500})
    (gained,) = found.gained
    assert (gained.noun, gained.before, gained.after) == ("image", 0, 500)
    assert (gained.per_1000_before, gained.per_1000_after) == (0, 500)
    assert (found.captions_before, found.captions_after) == (500, 1000)


def test_chance_alone_gains_and_loses_nothing() -> None:
    draw = random.Random(3)
    nouns = [f"n{i}" for i in range(300)]
    weights = [1 / (rank + 1) for rank in range(300)]
    one, other = (dict.fromkeys(nouns, 0) for _ in range(2))
    for sample in (one, other):
        for noun in draw.choices(nouns, weights, k=20_000):
            sample[noun] += 1
    found = compared(one, other)
    assert (found.gained_nouns, found.lost_nouns) == (0, 0)


def test_the_furthest_come_first_ties_by_name_and_the_rest_is_counted() -> None:
    old = {"filler": 2000, **{f"n{i}": 1 for i in range(9)}}
    new = {"filler": 2000, **{f"n{i}": 200 for i in range(9)}, "most": 900}
    found = compared(old, new, limit=3)
    assert [n.noun for n in found.gained] == ["most", "n0", "n1"]
    assert found.gained_nouns == 10
    assert all(n.z > found.bound for n in found.gained)


def test_only_the_counted_kind_is_compared() -> None:
    found = compared({"dog": 300, "REX": 300}, {"dog": 300, "REX": 1, "MAX": 300}, Counted.PROPN)
    assert [n.noun for n in found.gained] == ["max"]
    assert [n.noun for n in found.lost] == ["rex"]


def test_a_column_that_was_not_counted_is_a_users_error() -> None:
    counts = counted({"b": {"dog": 1}})
    with pytest.raises(UserError, match="column x was not counted"):
        compare_columns(summarise(RULES, counts.totals, [counts.nouns]), "b", "x", [], [])
