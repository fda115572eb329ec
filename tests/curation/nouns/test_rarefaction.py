import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curation.nouns.rarefaction import chance_above, chance_of_absence, chance_of_one


@st.composite
def corpora(draw: st.DrawFn, most: int = 3000) -> tuple[int, int, int]:
    """(N, m, df) with 1 <= m < N and 1 <= df <= N."""
    total = draw(st.integers(2, most))
    return total, draw(st.integers(1, total - 1)), draw(st.integers(1, total))


def absence(df: int, m: int, total: int) -> float:
    return float(chance_of_absence(np.array([df]), m, total)[0])


@settings(max_examples=300)
@given(corpora())
def test_the_chance_of_absence_is_the_ratio_of_binomial_coefficients(corpus: tuple[int, int, int]) -> None:
    total, m, df = corpus
    exact = float(Fraction(math.comb(total - df, m), math.comb(total, m)))
    assert absence(df, m, total) == pytest.approx(exact, rel=1e-9, abs=1e-12)


@settings(max_examples=100)
@given(corpora())
def test_drawing_captions_and_drawing_occurrences_are_the_same(corpus: tuple[int, int, int]) -> None:
    total, m, df = corpus
    assume(df < total)
    assert absence(df, m, total) == pytest.approx(absence(m, df, total), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("total", [10**6, 10**8, 3 * 10**9])
@pytest.mark.parametrize("df", [1, 2, 1000])
def test_one_caption_of_a_hundred_million_keeps_its_digits(total: int, df: int) -> None:
    assert 1 - absence(df, 1, total) == pytest.approx(df / total, rel=1e-4)


def test_expected_distinct_nouns_are_those_of_drawn_samples() -> None:
    draw = random.Random(1)
    captions = [{f"n{int(draw.paretovariate(0.8))}" for _ in range(4)} for _ in range(300)]
    df: dict[str, int] = {}
    for caption in captions:
        for noun in caption:
            df[noun] = df.get(noun, 0) + 1
    for m in (1, 10, 100, 299):
        expected = float((1 - chance_of_absence(np.array(list(df.values())), m, 300)).sum())
        drawn = [len(set().union(*draw.sample(captions, m))) for _ in range(600)]
        spread = np.std(drawn) / math.sqrt(len(drawn))
        assert abs(np.mean(drawn) - expected) <= 4 * spread + 1e-9


@given(st.integers(1, 400), st.floats(0.001, 0.999))
def test_binomial_chances_are_the_sums_of_their_terms(tf: int, share: float) -> None:
    def term(k: int) -> float:
        return math.comb(tf, k) * share**k * (1 - share) ** (tf - k)

    one_array = np.array([tf])
    assert chance_of_one(one_array, share)[0] == pytest.approx(term(1), rel=1e-9, abs=1e-12)
    above = 1 - sum(term(k) for k in range(min(tf, 10) + 1))
    assert chance_above(one_array, 10, share)[0] == pytest.approx(above, abs=1e-9)


def test_frequent_nouns_are_certain_to_be_valid() -> None:
    assert chance_above(np.array([10**9]), 10, 0.5)[0] == 1
    assert chance_above(np.array([10]), 10, 0.999)[0] == pytest.approx(0, abs=1e-12)
