import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.randomness import Purpose, generator, permutation, sample_id

words = st.integers(0, 2**64 - 1)


@given(words, st.integers(0, 2**40), words, st.sampled_from(Purpose))
def test_the_same_use_of_a_sample_draws_the_same_numbers(seed: int, visit: int, sample: int, purpose: Purpose) -> None:
    once, again = (generator(seed, visit, sample, purpose).standard_normal(8) for _ in range(2))
    assert np.array_equal(once, again)


def test_seed_visit_sample_and_purpose_each_open_another_stream() -> None:
    uses = [(1, 2, 3, Purpose.NOISE), (2, 2, 3, Purpose.NOISE), (1, 3, 3, Purpose.NOISE), (1, 2, 4, Purpose.NOISE)]
    uses += [(1, 2, 3, purpose) for purpose in Purpose if purpose != Purpose.NOISE]
    draws = {tuple(generator(*use).standard_normal(4)) for use in uses}
    assert len(draws) == len(uses)


def test_a_long_draw_does_not_run_into_the_next_visit() -> None:
    long = generator(1, 0, 5, Purpose.NOISE).standard_normal(1 << 16)
    following = generator(1, 1, 5, Purpose.NOISE).standard_normal(16)
    assert not np.isin(following, long).any()


def test_a_sample_id_separates_shard_from_key_and_never_changes() -> None:
    assert sample_id("shard", "key") != sample_id("shardk", "ey")
    assert sample_id("00017", "folder/picture") == 18182854356673736991


def test_timesteps_are_uniform() -> None:
    draws = [int(generator(0, 0, sample, Purpose.TIMESTEP).integers(1000)) for sample in range(20_000)]
    counts = np.bincount(np.array(draws) // 100, minlength=10)
    assert np.abs(counts - 2000).max() < 250


@given(st.text(max_size=20), st.integers(0, 300))
def test_a_permutation_holds_every_number_once(name: str, count: int) -> None:
    assert sorted(permutation(name, count).tolist()) == list(range(count))


def test_a_permutation_never_changes() -> None:
    assert permutation("name", 8).tolist() == [3, 7, 6, 1, 0, 5, 2, 4]
