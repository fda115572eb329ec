"""The thresholds of the pre-filter, and the first test that drops a row."""

import math

import numpy as np
import pytest

from curation.ingest.prefilter import Prefilter
from schemas.errors import UserError


def dropped(prefilter: Prefilter, **columns: list[float]) -> list[str | None]:
    numbers = {name: np.array(values, np.float64) for name, values in columns.items()}
    return prefilter.dropped(numbers, len(next(iter(columns.values()))))


@pytest.mark.parametrize(
    ("prefilter", "field", "values", "expected"),
    [
        (Prefilter(min_width=10), "source_width", [9, 10, math.nan], ["width", None, None]),
        (Prefilter(min_similarity=0.3), "similarity", [0.2999, 0.3], ["similarity", None]),
        (Prefilter(max_punsafe=0.5), "punsafe", [0.5, 0.51, math.nan], [None, "punsafe", "punsafe_unknown"]),
        (Prefilter(max_pwatermark=0.8), "pwatermark", [0.81, 0.1], ["pwatermark", None]),
        (Prefilter(min_aesthetic=5), "aesthetic", [4.9, 5.0, math.nan], ["aesthetic", None, "aesthetic_unknown"]),
    ],
)
def test_a_threshold_lets_its_own_value_pass_and_an_unknown_score_not(
    prefilter: Prefilter, field: str, values: list[float], expected: list[str | None]
) -> None:
    assert dropped(prefilter, **{field: values}) == expected


def test_a_row_is_counted_for_the_first_test_alone() -> None:
    prefilter = Prefilter(min_width=10, min_height=10, min_area=200, min_similarity=0.3)
    sizes = {"source_width": [5.0, 10, 10, 20], "source_height": [5.0, 5, 10, 10]}
    assert dropped(prefilter, **sizes, similarity=[0.0, 0, 0, 0]) == ["width", "height", "area", "similarity"]


def test_without_thresholds_every_row_passes_and_no_field_is_needed() -> None:
    assert dropped(Prefilter(), similarity=[math.nan, 0.0]) == [None, None]
    assert Prefilter().fields == frozenset()


def test_the_fields_that_are_needed_follow_from_the_thresholds() -> None:
    assert Prefilter(min_area=100, max_punsafe=0.0).fields == {"source_width", "source_height", "punsafe"}


def test_a_picture_that_is_smaller_than_its_metadata_said_is_too_small() -> None:
    prefilter = Prefilter(min_width=10, min_area=200)
    assert prefilter.too_small(width=20, height=10) is None
    assert prefilter.too_small(width=9, height=100) == "100x9 px: 9 px wide, below 10"
    assert prefilter.too_small(width=10, height=10) == "10x10 px: 100 px in area, below 200"


@pytest.mark.parametrize("wrong", [{"min_width": 0}, {"min_area": -1}, {"max_punsafe": math.nan}])
def test_thresholds_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"--(min-width|min-area|max-punsafe)"):
        Prefilter(**wrong)
