import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.bijection import Bijection


@given(st.text(max_size=20), st.integers(0, 3000))
def test_every_element_has_one_place(name: str, count: int) -> None:
    assert sorted(Bijection(name, count)(np.arange(count)).tolist()) == list(range(count))


@given(st.text(max_size=20), st.integers(1, 2**32), st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_a_place_is_found_alone_as_among_others(name: str, count: int, places: list[int]) -> None:
    asked = np.array(places) % count
    order = Bijection(name, count)
    together = order(asked)
    assert together.min() >= 0
    assert together.max() < count
    assert together.tolist() == [int(order(asked[i : i + 1])[0]) for i in range(len(asked))]


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_all_orders_of_a_few_are_as_likely(count: int) -> None:
    orders = math.factorial(count)
    found = Counter(tuple(Bijection(f"{i}", count)(np.arange(count)).tolist()) for i in range(40 * orders))
    surprise = sum((found[order] - 40) ** 2 / 40 for order in found) + 40 * (orders - len(found))
    assert surprise < orders - 1 + 5 * math.sqrt(2 * (orders - 1))  # chi squared, five standard deviations


@pytest.mark.parametrize("count", [1000, 5000])
def test_an_order_of_many_has_the_statistics_of_a_random_one(count: int) -> None:
    places = np.arange(count)
    orders = [Bijection(f"{i}", count)(places) for i in range(400)]
    correlation = np.array([np.corrcoef(places, order)[0, 1] for order in orders]) * math.sqrt(count)
    assert abs(correlation.mean()) < 5 / math.sqrt(400)
    assert 0.8 < correlation.std() < 1.2
    assert np.mean([np.sum(order == places) for order in orders]) == pytest.approx(1, abs=0.25)
    assert np.mean([np.sum(np.abs(np.diff(order)) == 1) for order in orders]) == pytest.approx(2, abs=0.4)


def test_an_order_never_changes() -> None:
    assert Bijection("name", 8)(np.arange(8)).tolist() == [4, 0, 1, 6, 3, 5, 2, 7]
    assert Bijection("name", 25_000_000)(np.arange(3)).tolist() == [3079682, 1638811, 21249292]
