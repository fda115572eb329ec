from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UserError
from training.evaluation.statistics import Moments, Space, gather, load_moments, moments_digest, save_moments

SPACE = Space("inception.pt", "abc", 5, "bicubic")


def features(count: int = 60, dim: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(3, 2, (count, dim)).astype(np.float32)


def test_moments_are_those_that_numpy_finds() -> None:
    values = features()
    moments = Moments.of(values)
    assert np.allclose(moments.mean, values.astype(np.float64).mean(0), rtol=1e-13)
    assert np.allclose(moments.covariance, np.cov(values.astype(np.float64), rowvar=False), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=6))
def test_however_the_vectors_are_cut_into_batches_the_moments_are_the_same(cuts: list[int]) -> None:
    values = features()
    whole, parts = Moments.of(values), gather(np.split(values, sorted(cuts)))
    assert parts.count == whole.count
    assert np.allclose(parts.mean, whole.mean, rtol=1e-12)
    assert np.allclose(parts.scatter, whole.scatter, rtol=1e-12, atol=1e-9)


def test_merging_is_associative_and_nothing_is_neutral() -> None:
    a, b, c = (Moments.of(features(n, seed=n)) for n in (3, 11, 46))
    left, right = a.merged(b).merged(c), c.merged(a.merged(b))
    assert np.allclose(left.scatter, right.scatter, rtol=1e-12)
    assert np.allclose(left.mean, right.mean, rtol=1e-13)
    for same in (a.merged(Moments.empty(5)), Moments.empty(5).merged(a)):
        assert np.array_equal(same.mean, a.mean)
        assert np.array_equal(same.scatter, a.scatter)


def test_a_large_mean_does_not_cost_the_covariance_its_digits() -> None:
    """Sums of x x^T at a mean of 1e6 would leave 4 digits of a variance of 1."""
    values = np.random.default_rng(1).normal(0, 1, (4000, 3))
    moved = gather(np.split(values + 1e6, 40))
    assert np.allclose(moved.covariance, np.cov(values, rowvar=False), rtol=1e-8, atol=1e-8)


def test_one_picture_has_no_covariance() -> None:
    with pytest.raises(UserError, match="at least 2"):
        _ = Moments.of(features(1)).covariance


def test_statistics_come_back_from_their_file(tmp_path: Path) -> None:
    moments = Moments.of(features())
    digest = save_moments(tmp_path / "kept" / "ref.npz", moments, SPACE, "val2014")
    back, space, source = load_moments(tmp_path / "kept" / "ref.npz")
    assert (back.count, space, source) == (60, SPACE, "val2014")
    assert moments_digest(back) == digest == moments_digest(moments)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["ref.npz"]


def test_statistics_of_another_tool_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "fid.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(UserError, match="does not say with which features and resize"):
        load_moments(tmp_path / "fid.npz")


@pytest.mark.parametrize("damage", ["missing", "torn", "other numbers"])
def test_damaged_statistics_are_told_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ref.npz"
    if damage != "missing":
        save_moments(path, Moments.of(features()), SPACE, "val2014")
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:300])
    if damage == "other numbers":
        with np.load(path) as file:
            members = dict(file)
        np.savez(path, **{**members, "mean": members["mean"] + 1})
    with pytest.raises(UserError, match=r"ref\.npz"):
        load_moments(path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(SPACE, preparation="bilinear"), "prepared as 'bilinear', not 'bicubic'"),
        (replace(SPACE, features_digest="def"), "of digest 'def', not 'abc'"),
    ],
)
def test_features_of_another_network_or_resize_are_not_compared(other: Space, words: str) -> None:
    SPACE.require_same(SPACE, "samples", "ref.npz")
    with pytest.raises(UserError, match=words):
        SPACE.require_same(other, "samples", "ref.npz")
