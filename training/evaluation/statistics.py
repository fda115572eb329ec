"""Mean and covariance of features: gathered batch by batch, merged from parts, kept in a file."""

import functools
import json
import os
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from schemas.errors import StorageError, UserError
from schemas.record import canonical_json, from_json

Array = NDArray[np.float64]

_ARRAYS: Final = ("mean", "scatter")
_ABOUT: Final = "about"  # the member of the file that holds the rest, as JSON


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """N vectors of D features, as far as their mean and covariance go.

    These merge as a monoid: `merged` is associative and commutative and `empty` is its neutral element, all up to the
    rounding of float64, so it does not matter how the vectors were cut into batches or dealt to processes.
    """

    count: int
    mean: Array  # [D]
    scatter: Array  # [D, D], the sum of (x - mean)(x - mean)^T

    @classmethod
    def empty(cls, dim: int) -> "Moments":
        """Those of no vectors of `dim` features."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def of(cls, features: NDArray[np.floating[Any]]) -> "Moments":
        """Those of the rows of `features` [N, D]."""
        values = features.astype(np.float64)
        if not len(values):
            return cls.empty(values.shape[1])
        mean = values.mean(axis=0)
        centred = values - mean
        return cls(len(values), mean, centred.T @ centred)

    def merged(self, other: "Moments") -> "Moments":
        """Those of both sets together (Chan, Golub & LeVeque 1983).

        Sums of x and of x x^T would merge too, but lose the covariance's digits where the mean is large beside it.
        """
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        between = np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def dim(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def covariance(self) -> Array:
        """The unbiased covariance [D, D], as every published FID has it. Raises `UserError` for less than 2 vectors."""
        if self.count < 2:
            raise UserError(f"{self.count} pictures have no covariance. Give at least 2, better many thousands.")
        return self.scatter / (self.count - 1)


def gather(batches: Iterable[NDArray[np.floating[Any]]]) -> Moments:
    """The moments of all rows of all batches [*, D], of which there is at least one."""
    return functools.reduce(Moments.merged, map(Moments.of, batches))


@dataclass(frozen=True, slots=True)
class Space:
    """What makes two sets of features comparable: the network, and how pictures reach it."""

    features: str  # what the network is called
    features_digest: str  # of its weights
    dim: int
    preparation: str  # how a picture gets from its file to the network, in words

    def require_same(self, other: "Space", here: str, there: str) -> None:
        """Raise `UserError`, naming what differs, unless features of `self` and `other` may be compared."""
        mine, theirs = asdict(self), asdict(other)
        names = {"features": "called", "features_digest": "of digest", "dim": "wide", "preparation": "prepared as"}
        differs = [f"{names[key]} {theirs[key]!r}, not {mine[key]!r}" for key in mine if mine[key] != theirs[key]]
        if differs:
            raise UserError(
                f"{there}: its features are {'; '.join(differs)} as those of {here}. Distances between them mean "
                f"nothing: make the statistics again with the same features and resize."
            )


@dataclass(frozen=True, slots=True)
class _About:
    count: int
    space: Space
    source: str
    digest: str  # xxh3_128 of the arrays


def save_moments(path: Path, moments: Moments, space: Space, source: str) -> str:
    """Write the moments of the pictures called `source` to `path` (npz), whole or not at all; their digest.

    Raises `StorageError` where it cannot be written.
    """
    digest = moments_digest(moments)
    about = canonical_json(asdict(_About(moments.count, space, source, digest)))
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            np.savez(file, mean=moments.mean, scatter=moments.scatter, about=np.array(about))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise StorageError(
            f"{path}: statistics cannot be written ({error.strerror}). Free space or check it."
        ) from None
    finally:
        aside.unlink(missing_ok=True)
    return digest


def load_moments(path: Path) -> tuple[Moments, Space, str]:
    """The moments in a file of `save_moments`, the space they are in, and what they were made of.

    Raises `UserError` if there is none, it is damaged, or it is another tool's: such files do not say which resize
    and which network they were made with, so nothing can be compared with them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in (*_ARRAYS, _ABOUT) if name not in file]
            if missing:
                raise UserError(
                    f"{path}: lacks {', '.join(missing)}, so it does not say with which features and resize it was "
                    f"made. Make the statistics here, from the pictures: --save-statistics."
                )
            about = from_json(_About, str(file[_ABOUT]), str(path))
            moments = Moments(about.count, *(np.array(file[name], dtype=np.float64) for name in _ARRAYS))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Make it with --save-statistics.") from None
    except (OSError, ValueError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise UserError(f"{path}: no readable statistics ({error}). Make them again with --save-statistics.") from None
    if moments_digest(moments) != about.digest:
        raise UserError(f"{path}: its numbers are not those it was written with. Make it again with --save-statistics.")
    return moments, about.space, about.source


def moments_digest(moments: Moments) -> str:
    """xxh3_128 of the count and the numbers."""
    digest = xxhash.xxh3_128(moments.count.to_bytes(8, "little"))
    for array in (moments.mean, moments.scatter):
        digest.update(np.ascontiguousarray(array, dtype="<f8").tobytes())
    return digest.hexdigest()
