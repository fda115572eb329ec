"""How exact is a Fréchet distance, and how long does its matrix root take?

    python -m benchmarks.frechet_accuracy --dim 512

Two sets whose covariances share their eigenvectors, so that the distance is known in closed form: of full rank, and of
a rank below D as with fewer pictures than features. Three ways to the trace of (S1 S2)^(1/2): ours (symmetric
eigenvalues), torchmetrics' (eigenvalues of the product), pytorch-fid's (scipy's root of the product, 1e-6 added to
the diagonal where it is not finite). Then the covariance itself, from sums of x and x x^T, as torchmetrics keeps, and
from moments that merge, for features whose mean is large beside their spread.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from training.evaluation.frechet import frechet_distance
from training.evaluation.statistics import Moments, gather

Array = NDArray[np.float64]
_COUNT = 1001  # any number: moments are made of a given covariance


def main() -> None:
    """Print errors and CPU seconds."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--dim", type=int, default=512)
    dim = command.parse_args().dim
    print(f"D = {dim}; torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores")
    print("relative error of the distance, CPU seconds")
    for name, rank in (("full rank", dim), ("rank D / 4", dim // 4)):
        one, other, true = known(dim, rank)
        for way, distance in WAYS.items():
            began = time.process_time()
            found = distance(one, other)
            spent = time.process_time() - began
            print(f"{name:<12}{way:<34}{abs(found - true) / true:>12.1e}{spent:>9.2f} s")
    for shift in (0.0, 1e3, 1e6):
        print(f"mean {shift:<8g} error of the covariance: sums {sums(shift):.1e}, merged moments {merged(shift):.1e}")


def known(dim: int, rank: int) -> tuple[Array, Array, float]:
    """Two covariances of `rank` and the distance of their Gaussians about one mean."""
    draws = np.random.default_rng(0)
    turn, _ = np.linalg.qr(draws.normal(size=(dim, dim)))
    values = np.zeros((2, dim))
    values[:, :rank] = np.exp(draws.normal(0, 2, (2, rank)))
    one, other = ((turn * row) @ turn.T for row in values)
    return one, other, float(np.square(np.sqrt(values[0]) - np.sqrt(values[1])).sum())


def ours(one: Array, other: Array) -> float:
    """By `frechet_distance`."""
    zero = np.zeros(len(one))
    moments = (Moments(_COUNT, zero, covariance * (_COUNT - 1)) for covariance in (one, other))
    return frechet_distance(*moments).distance


def by_eigenvalues(one: Array, other: Array) -> float:
    """By the eigenvalues of the product, complex where rounding makes them so."""
    values = torch.linalg.eigvals(torch.from_numpy(one @ other)).sqrt().real.sum()
    return float(np.trace(one) + np.trace(other) - 2 * float(values))


def by_square_root(one: Array, other: Array) -> float:
    """By the square root of the product."""
    root = linalg.sqrtm(one @ other)
    if not np.isfinite(root).all():
        offset = 1e-6 * np.eye(len(one))
        root = linalg.sqrtm((one + offset) @ (other + offset))
    return float(np.trace(one) + np.trace(other) - 2 * np.trace(root).real)


WAYS: dict[str, Callable[[Array, Array], float]] = {
    "symmetric eigenvalues (ours)": ours,
    "eigenvalues of the product": by_eigenvalues,
    "square root of the product": by_square_root,
}


def _features(shift: float) -> tuple[Array, Array]:
    values = np.random.default_rng(1).normal(0, 1, (4000, 16))
    return values + shift, np.cov(values, rowvar=False)


def sums(shift: float) -> float:
    """Relative error of a covariance from sums of x and x x^T, in float64."""
    values, true = _features(shift)
    mean = values.mean(axis=0)
    found = (values.T @ values - len(values) * np.outer(mean, mean)) / (len(values) - 1)
    return float(np.abs(found - true).max() / true.max())


def merged(shift: float) -> float:
    """The same of moments merged from 40 batches."""
    values, true = _features(shift)
    return float(np.abs(gather(np.split(values, 40)).covariance - true).max() / true.max())


if __name__ == "__main__":
    main()
