"""The Fréchet distance between two sets of features, each taken for a Gaussian; with Inception features it is FID."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UserError
from training.evaluation.statistics import Array, Moments

ENOUGH: Final = 2048
"""Below as many pictures a Fréchet distance says little: it is biased upwards by an amount that depends on N."""

_NOT_POSITIVE: Final = 1e-6  # an eigenvalue below minus so much of the largest is no rounding


@dataclass(frozen=True, slots=True)
class FrechetDistance:
    """|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson & Landau 1982), and the parts it is the sum of."""

    distance: float
    means: float
    covariances: float


def frechet_distance(one: Moments, other: Moments) -> FrechetDistance:
    """The distance between the Gaussians of two sets, in float64.

    The trace of the root is taken as the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), a symmetric
    matrix with the eigenvalues of S1 S2: no complex numbers arise and nothing has to be added to a diagonal, also where
    a covariance is singular for want of pictures. Eigenvalues within D epsilon of the largest are rounding and count
    as 0 (as in a numerical rank); so does a distance below 0.
    Raises `UserError` for widths that differ, fewer than 2 vectors, and a matrix that is no covariance.
    """
    if one.dim != other.dim:
        raise UserError(f"features {one.dim} and {other.dim} wide cannot be compared. Use the same network for both.")
    means = float(np.square(one.mean - other.mean).sum())
    first, second = one.covariance, other.covariance
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(_positive(values))) @ vectors.T
    shared = np.sqrt(_positive(np.linalg.eigvalsh(root @ second @ root))).sum()
    covariances = float(np.trace(first) + np.trace(second) - 2 * shared)
    return FrechetDistance(max(0.0, means + covariances), means, covariances)


def _positive(eigenvalues: Array) -> Array:
    """Eigenvalues [D] of a covariance, those that are rounding set to 0."""
    largest = float(eigenvalues[-1])
    if not np.isfinite(eigenvalues).all() or eigenvalues[0] < -_NOT_POSITIVE * max(largest, 0.0):
        raise UserError("a matrix of the statistics is no covariance. Make them again; the features may not be finite.")
    rounding = len(eigenvalues) * np.finfo(np.float64).eps * largest
    return np.where(eigenvalues > rounding, eigenvalues, 0.0)


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """The distance for infinitely many pictures, from how it falls with 1 / N (Chong & Forsyth 2020, section 4).

    `points` are (N, distance); `residual` is the largest error of the straight line at a point.
    """

    distance: float
    points: tuple[tuple[int, float], ...]
    residual: float


def extrapolated(
    features: NDArray[np.floating[Any]], reference: Moments, seed: int, points: int = 15, smallest: float = 1 / 6
) -> Extrapolated:
    """Fit a line in 1 / N to the distances of random subsets of `features` [N, D] from `reference`.

    Subsets are drawn without replacement, `points` of them, from `smallest` of all up to all, evenly spaced in N.
    The bias of the reference's own size stays: keep it the same where distances are compared.
    Raises `UserError` for too few pictures.
    """
    count = len(features)
    sizes = np.unique(np.linspace(count * smallest, count, points).astype(int))
    if len(sizes) < 3 or sizes[0] < 2:
        raise UserError(f"{count} pictures are too few to extrapolate from. Give thousands, or leave out --unbiased.")
    draws = np.random.default_rng(seed)
    found = [
        (int(size), frechet_distance(Moments.of(features[draws.permutation(count)[:size]]), reference).distance)
        for size in sizes
    ]
    inverse, distances = 1 / np.array([n for n, _ in found]), np.array([d for _, d in found])
    slope, intercept = np.polyfit(inverse, distances, 1)
    residual = float(np.abs(slope * inverse + intercept - distances).max())
    return Extrapolated(float(intercept), tuple(found), residual)


def warnings_for(count: int, dim: int, what: str) -> list[str]:
    """What a reader of a distance over `count` pictures of `what` must be told."""
    told = []
    if count < ENOUGH:
        told.append(f"{what}: {count:,} pictures are fewer than {ENOUGH:,}; the distance is biased upwards and noisy")
    if count <= dim:
        told.append(f"{what}: {count:,} pictures for features {dim:,} wide; their covariance is singular")
    return told
