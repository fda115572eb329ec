"""Axes: values to places, and round ticks."""

from hypothesis import given
from hypothesis import strategies as st

from curation.report.charts.scale import Scale, linear, logarithmic, spell_short

VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=10)


@given(VALUES, st.booleans())
def test_all_values_have_a_place_within(values: list[float], from_zero: bool) -> None:
    given_values = [abs(v) for v in values] if from_zero else values
    scale = linear(given_values, from_zero=from_zero)
    assert all(-1e-9 <= scale.place(v) <= 1 + 1e-9 for v in given_values)
    assert all(-1e-6 <= scale.place(tick) <= 1 + 1e-6 for tick in scale.ticks(5))


@given(st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=10))
def test_logarithmic_places_and_ticks_lie_within(values: list[float]) -> None:
    scale = logarithmic(values)
    assert all(-1e-9 <= scale.place(v) <= 1 + 1e-9 for v in values)
    assert all(-1e-6 <= scale.place(tick) <= 1 + 1e-6 for tick in scale.ticks(5))


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    assert Scale(1, 11.19e6, log=True).ticks(8) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7]
    assert Scale(1, 11.19e6, log=True).ticks(4) == [1, 100, 1e4, 1e6]
    assert Scale(20, 70, log=True).ticks(4)  # less than a decade still has ticks


def test_ticks_are_spelt_short() -> None:
    assert [spell_short(v) for v in (0, 0.25, 7, 1200, 2461000, 11.19e6)] == [
        "0",
        "0.25",
        "7",
        "1.2k",
        "2.46M",
        "11.2M",
    ]
