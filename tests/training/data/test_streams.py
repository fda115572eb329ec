from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.population import Population
from training.data.streams import CHUNKS, Streams

Make = Callable[..., Population]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3), st.integers(0, 80), st.integers(0, 3))
def test_each_pass_has_every_sample_of_the_stratum_once(
    make_population: Make, sizes: list[int], window: int, seed: int
) -> None:
    population = make_population([sizes, sizes[::-1]])
    streams = Streams(population, seed, window)
    for stratum in population.strata:
        members = sorted(population.members[stratum.first : stratum.first + stratum.size].tolist())
        rows, visits = streams.read(stratum, 0, 3 * stratum.size)
        for visit in range(3):
            assert sorted(rows[visits == visit].tolist()) == members
        if stratum.size > 20:
            assert rows[: stratum.size].tolist() != rows[stratum.size : 2 * stratum.size].tolist()


@given(st.integers(1, 300), st.integers(0, 80), st.integers(0, 500), st.integers(0, 200))
def test_a_part_of_a_stream_read_alone_is_that_of_the_whole(
    make_population: Make, size: int, window: int, start: int, length: int
) -> None:
    population = make_population([[size, 50]])
    whole = Streams(population, 1, window).read(population.strata[0], 0, start + length)
    part = Streams(population, 1, window).read(population.strata[0], start, start + length)
    for one, other in zip(whole, part, strict=True):
        assert np.array_equal(one[start:], other)


@pytest.mark.parametrize("window", [160, 1600])
def test_within_a_window_reads_come_from_few_chunks_of_neighbours_whatever_the_bucket(
    make_population: Make, window: int
) -> None:
    population = make_population([[12_000, 3_000, 1_000]])
    streams, chunk = Streams(population, 0, window), window // CHUNKS
    share = {}
    for stratum in population.strata:
        rows, _ = streams.read(stratum, 0, stratum.size)
        first = rows[: round(stratum.size * 0.8 * window / len(population))]
        share[stratum.bucket] = set((first // chunk).tolist())
    assert len(set.union(*share.values())) <= 1.5 * CHUNKS
    assert len(share[0]) <= CHUNKS


def test_a_window_is_shuffled_within(make_population: Make) -> None:
    population = make_population([[16_000]])
    rows, _ = Streams(population, 0, 1600).read(population.strata[0], 0, 1600)
    assert np.mean(np.abs(np.diff(rows)) == 1) < 0.01
    assert abs(np.corrcoef(np.arange(1600), rows // 100)[0, 1]) < 0.1
