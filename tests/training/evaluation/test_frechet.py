import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from schemas.errors import UserError
from training.evaluation.frechet import extrapolated, frechet_distance, warnings_for
from training.evaluation.statistics import Moments


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 1001) -> Moments:
    """Exactly this mean and covariance."""
    return Moments(count, np.asarray(mean, float), np.asarray(covariance, float) * (count - 1))


def random_covariance(dim: int, seed: int, rank: int | None = None) -> np.ndarray:
    factor = np.random.default_rng(seed).normal(size=(dim, rank or 2 * dim))
    return factor @ factor.T / dim


def test_gaussians_in_one_dimension_are_as_far_apart_as_their_means_and_deviations() -> None:
    found = frechet_distance(gaussian([1.0], [[4.0]]), gaussian([4.0], [[25.0]]))
    assert found.distance == pytest.approx((4 - 1) ** 2 + (5 - 2) ** 2, rel=1e-14)
    assert found.means == 9
    assert found.covariances == pytest.approx(9)


def test_covariances_that_commute_differ_by_the_roots_of_their_eigenvalues() -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(6, 6)))
    one, other = np.arange(1.0, 7), np.array([9.0, 0.5, 4.0, 1.0, 0.0, 2.0])
    found = frechet_distance(
        gaussian(np.zeros(6), turn @ np.diag(one) @ turn.T), gaussian(np.ones(6), turn @ np.diag(other) @ turn.T)
    )
    assert found.distance == pytest.approx(6 + np.square(np.sqrt(one) - np.sqrt(other)).sum(), rel=1e-12)


@pytest.mark.parametrize("rank", [None, 12])
def test_the_distance_is_the_one_that_a_general_matrix_root_gives(rank: int | None) -> None:
    """Also where both covariances are singular, as with fewer pictures than features."""
    linalg = pytest.importorskip("scipy.linalg")
    one, other = random_covariance(40, 1, rank), random_covariance(40, 2, rank)
    mean = np.random.default_rng(4).normal(size=40)
    root = linalg.sqrtm(one @ other)
    expected = mean @ mean + np.trace(one) + np.trace(other) - 2 * np.trace(root).real
    found = frechet_distance(gaussian(mean, one), gaussian(np.zeros(40), other)).distance
    assert found == pytest.approx(expected, rel=1e-10 if rank is None else 1e-6)


def test_the_distance_from_oneself_is_nothing_and_it_is_symmetric() -> None:
    one = gaussian(np.ones(30), random_covariance(30, 5, rank=7))
    other = gaussian(np.zeros(30), random_covariance(30, 6))
    assert frechet_distance(one, one).distance < 1e-8 * np.trace(one.covariance)
    assert frechet_distance(one, other).distance == pytest.approx(frechet_distance(other, one).distance, rel=1e-9)


class _Passing(nn.Module):
    num_features = 12

    def forward(self, values: Tensor) -> Tensor:
        return values


@pytest.mark.slow  # its import takes seconds
@pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics is not installed")
def test_torchmetrics_finds_the_same_distance() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    draws = np.random.default_rng(7)
    one, other = draws.normal(0, 1, (300, 12)), draws.normal(0.3, 1.5, (200, 12))
    metric = FrechetInceptionDistance(feature=_Passing())
    metric.update(torch.from_numpy(one), real=True)
    metric.update(torch.from_numpy(other), real=False)
    found = frechet_distance(Moments.of(one), Moments.of(other)).distance
    assert found == pytest.approx(float(metric.compute()), rel=1e-9)


def test_what_is_no_covariance_is_refused() -> None:
    bent = np.diag([1.0, -0.5])
    with pytest.raises(UserError, match="no covariance"):
        frechet_distance(gaussian(np.zeros(2), bent), gaussian(np.zeros(2), np.eye(2)))
    with pytest.raises(UserError, match="2 and 3 wide"):
        frechet_distance(gaussian(np.zeros(2), np.eye(2)), gaussian(np.zeros(3), np.eye(3)))


def test_the_bias_of_few_pictures_goes_with_the_extrapolation() -> None:
    """Both sets are of one distribution, so the true distance is 0."""
    draws = np.random.default_rng(0)
    reference, drawn = gaussian(np.zeros(16), np.eye(16)), draws.normal(size=(1500, 16))
    biased = frechet_distance(Moments.of(drawn), reference).distance
    found = extrapolated(drawn, reference, seed=0)
    assert biased > 0.05
    assert abs(found.distance) < biased / 5
    assert found.points[-1] == (1500, pytest.approx(biased))
    assert found == extrapolated(drawn, reference, seed=0)


def test_few_pictures_are_warned_of() -> None:
    assert not warnings_for(30_000, 2048, "samples")
    assert "2,048" in warnings_for(2047, 64, "samples")[0]
    assert "singular" in warnings_for(2048, 2048, "samples")[0]
