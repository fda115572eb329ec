import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.data.randomness import Purpose, fractions, normal, philox, sample_id, uniform

words = st.integers(0, 2**64 - 1)


def integers(seed: int, visits: torch.Tensor, samples: torch.Tensor, purpose: Purpose, below: int) -> torch.Tensor:
    """Timesteps as the objective of diffusion makes them."""
    return (fractions(seed, visits, samples, purpose) * below).long()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_cipher_gives_its_authors_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    for array in (np.array, torch.tensor):
        found = philox(tuple(array([word]) for word in counter), key)
        assert tuple(int(word[0]) for word in found) == expected


def ids(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def tensors(visits: list[int], samples: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(visits), torch.from_numpy(ids(samples).view(np.int64))


@given(words, st.lists(st.tuples(st.integers(0, 2**24 - 1), words), min_size=2, max_size=8), st.sampled_from(Purpose))
def test_a_draw_is_the_same_alone_and_among_others(seed: int, uses: list[tuple[int, int]], purpose: Purpose) -> None:
    visits, samples = ([use[i] for use in uses] for i in range(2))
    numbers = uniform(seed, np.array(visits), ids(samples), purpose)
    assert ((numbers >= 0) & (numbers < 1)).all()
    deviates = normal(seed, *tensors(visits, samples), purpose, (2, 3))
    steps = integers(seed, *tensors(visits, samples), purpose, 1000)
    for i, (visit, sample) in enumerate(uses):
        assert uniform(seed, np.array([visit]), ids([sample]), purpose)[0] == numbers[i]
        assert torch.equal(normal(seed, *tensors([visit], [sample]), purpose, (2, 3))[0], deviates[i])
        assert integers(seed, *tensors([visit], [sample]), purpose, 1000)[0] == steps[i]


def test_seed_visit_sample_and_purpose_each_open_another_stream() -> None:
    uses = [(1, 2, 3, Purpose.NOISE), (2, 2, 3, Purpose.NOISE), (1, 3, 3, Purpose.NOISE), (1, 2, 4, Purpose.NOISE)]
    uses += [(1, 2, 3, purpose) for purpose in Purpose if purpose != Purpose.NOISE]
    uses += [(1 + 2**32, 2, 3, Purpose.NOISE), (1, 2, 3 + 2**32, Purpose.NOISE), (1, 2 + 2**16, 3, Purpose.NOISE)]
    draws = {
        tuple(normal(seed, *tensors([visit], [sample]), purpose, (4,))[0].tolist())
        for seed, visit, sample, purpose in uses
    }
    assert len(draws) == len(uses)


def test_a_long_draw_does_not_run_into_the_next_visit() -> None:
    long = normal(1, *tensors([0], [5]), Purpose.NOISE, (1 << 16,))
    following = normal(1, *tensors([1], [5]), Purpose.NOISE, (16,))
    assert not torch.isin(following, long).any()


def test_deviates_are_standard_normal_and_independent() -> None:
    deviates = normal(3, *tensors([0] * 500, list(range(500))), Purpose.NOISE, (4, 16, 16)).numpy().reshape(500, -1)
    flat = np.sort(deviates.ravel())
    assert abs(flat.mean()) < 5 / math.sqrt(flat.size)
    assert abs(flat.std() - 1) < 5 / math.sqrt(2 * flat.size)
    expected = 0.5 * (1 + torch.erf(torch.from_numpy(flat.astype(np.float64)) / math.sqrt(2)).numpy())
    distance = np.abs(expected - np.arange(flat.size) / flat.size).max()
    assert distance < 1.95 / math.sqrt(flat.size)  # Kolmogorov and Smirnov, one in a thousand
    neighbours = (deviates[:, :-1] * deviates[:, 1:]).mean()
    others = (deviates[:-1] * deviates[1:]).mean()
    assert max(abs(neighbours), abs(others)) < 5 / math.sqrt(flat.size)


def test_timesteps_are_uniform() -> None:
    draws = integers(0, *tensors([0] * 20_000, list(range(20_000))), Purpose.TIMESTEP, 1000).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1000
    assert np.abs(np.bincount(draws // 100, minlength=10) - 2000).max() < 250


@given(words, st.lists(words, min_size=1, max_size=8))
def test_fractions_are_in_the_unit_interval(seed: int, samples: list[int]) -> None:
    drawn = fractions(seed, *tensors([1] * len(samples), samples), Purpose.TIMESTEP)
    assert drawn.dtype == torch.float64
    assert ((drawn >= 0) & (drawn < 1)).all()


def test_draws_never_change() -> None:
    visits, samples = tensors([3, 4], [5, 2**63 + 1])
    assert integers(7, visits, samples, Purpose.TIMESTEP, 1000).tolist() == [575, 987]
    numbers = uniform(7, np.array([3, 4]), ids([5, 2**63 + 1]), Purpose.FLIP)
    assert numbers.tolist() == [0.30417540010601096, 0.06431687646666717]
    expected = torch.tensor([[-0.831906, 2.402311], [-0.085433, -0.851941]])
    assert torch.allclose(normal(7, visits, samples, Purpose.NOISE, (2,)), expected, atol=2e-6)


@pytest.mark.gpu
def test_a_gpu_draws_what_the_host_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    visits, samples = tensors(list(range(64)), [sample_id("s", str(i)) for i in range(64)])
    there = visits.cuda(), samples.cuda()
    for purpose in Purpose:
        assert torch.equal(integers(9, *there, purpose, 1000).cpu(), integers(9, visits, samples, purpose, 1000))
        assert torch.equal(fractions(9, *there, purpose).cpu(), fractions(9, visits, samples, purpose))
        here = normal(9, visits, samples, purpose, (4, 32, 32))
        assert torch.allclose(normal(9, *there, purpose, (4, 32, 32)).cpu(), here, rtol=1e-5, atol=1e-6)


def test_a_sample_id_separates_shard_from_key_and_never_changes() -> None:
    assert sample_id("shard", "key") != sample_id("shardk", "ey")
    assert sample_id("00017", "folder/picture") == 18182854356673736991
