"""A power-function average of any width, put together from the snapshots that a run has kept of a few widths.

Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models" (2312.02696), section 3.2: each
average is the weights' course through training under a profile, so the sum of profiles that comes nearest to the one
asked for, by least squares, tells what sum of snapshots to take. One condition is added, that the snapshots' shares add
up to 1: with few snapshots the plain solution misses that by percents, and would shrink even a weight that never moved.
"""

import functools
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from torch import Tensor

from schemas.errors import UserError
from training.config import WIDEST_POWER_EMA
from training.ema import power_of
from training.weights.files import read_facts, save_weights

FOLDER: Final = "power-ema"
"""Where a run directory keeps snapshots of its power-function averages."""

WIDTH_KEY: Final = "power_ema_std"
"""What a snapshot's metadata calls the relative width."""

_NAME: Final = re.compile(r"step-(\d{8,})\.std-([0-9.e-]+)\.safetensors")
_MOST_ERROR: Final = 0.1  # of the profile's norm: what is farther off is another average than the one asked for

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Profile:
    """A power-function average: its relative width, and the images seen when it was taken."""

    std: float
    images: int


@dataclass(frozen=True, slots=True)
class Blend:
    """Which sum of snapshots stands for a profile, and how far it is off, as a share of the profile's norm."""

    shares: tuple[float, ...]
    error: float


def snapshot_name(step: int, std: float) -> str:
    """The file name of a snapshot."""
    return f"step-{step:08d}.std-{std:g}.safetensors"


def blend(stored: Sequence[Profile], wanted: Profile) -> Blend:
    """The shares, one for each of `stored`, whose sum of profiles comes nearest to `wanted`. They add up to 1."""
    if wanted in stored:
        return Blend(tuple(float(profile == wanted) for profile in stored), 0.0)
    among, towards = _overlaps(stored, stored), _overlaps(stored, [wanted])[:, 0]
    norm = _overlaps([wanted], [wanted])[0, 0]
    # Scaled to a unit diagonal, and the condition by a Lagrange multiplier.
    scale = np.diag(among) ** -0.5
    system = np.block([[among * scale[:, None] * scale, scale[:, None]], [scale[None], np.zeros((1, 1))]])
    shares = np.linalg.lstsq(system, np.append(towards * scale, 1.0), rcond=None)[0][:-1] * scale
    squared = shares @ among @ shares - 2 * shares @ towards + norm
    return Blend(tuple(shares.tolist()), float((max(0.0, squared) / norm) ** 0.5))


def reconstruct(run: Path, std: float, out: Path, step: int | None = None) -> Blend:
    """Write the average of width `std` at a snapshot's `step` (None: the last) of `run` as a weights file to `out`.

    Reads the snapshots tensor by tensor and adds in float64. Raises `UserError` where the run has none, none of `step`,
    or where its snapshots do not make up that width.
    """
    if not 0 < std <= WIDEST_POWER_EMA:
        raise UserError(f"--std {std} is no relative width. Use one above 0, at most 0.28.")
    snapshots = _snapshots(run)
    steps = sorted({snapshot.step for snapshot in snapshots})
    step = steps[-1] if step is None else step
    if step not in steps:
        raise UserError(f"{run / FOLDER}: no snapshot of step {step}. There are those of {', '.join(map(str, steps))}.")
    used = [snapshot for snapshot in snapshots if snapshot.step <= step]
    images = next(snapshot.profile.images for snapshot in used if snapshot.step == step)
    found = blend([snapshot.profile for snapshot in used], Profile(std, images))
    if found.error > _MOST_ERROR:
        raise UserError(
            f"{run / FOLDER}: the {len(used)} snapshots up to step {step} make up an average of width {std} with an "
            f"error of {found.error:.0%} of its profile. Ask for a width nearer to theirs, or keep more of them."
        )
    config, metadata = read_facts(used[-1].path)
    tensors = _sum([snapshot.path for snapshot in used], found.shares)
    save_weights(out, tensors, config, {**metadata, WIDTH_KEY: repr(std)})
    return found


@dataclass(frozen=True, slots=True)
class _Snapshot:
    path: Path
    step: int
    profile: Profile


def _snapshots(run: Path) -> list[_Snapshot]:
    """The snapshots of a run by step. Raises `UserError` if there are none, or one is damaged."""
    found = [(path, _NAME.fullmatch(path.name)) for path in sorted((run / FOLDER).glob("step-*"))]
    snapshots = list[_Snapshot]()
    for path, match in found:
        if match:
            metadata = read_facts(path)[1]
            profile = Profile(float(match[2]), int(metadata["images_seen"]))
            snapshots.append(_Snapshot(path, int(match[1]), profile))
    if not snapshots:
        raise UserError(f"{run / FOLDER}: no snapshots there. Train with --power-ema, or check --run.")
    return sorted(snapshots, key=lambda snapshot: (snapshot.step, snapshot.profile.std))


def _sum(paths: Sequence[Path], shares: Sequence[float]) -> dict[str, Tensor]:
    """The tensors of the files, each file's by its share. Those of a share of 0 are not read."""
    with ExitStack() as stack:
        files: list[tuple[Any, float]] = [
            (stack.enter_context(safe_open(path, framework="pt")), share)
            for path, share in zip(paths, shares, strict=True)
            if share
        ]
        total, names = dict[str, Tensor](), list(files[0][0].keys())
        for name in names:
            kind = files[0][0].get_tensor(name).dtype
            parts = (file.get_tensor(name).double() * share for file, share in files)
            total[name] = functools.reduce(torch.add, parts).to(kind)
    return total


def _overlaps(rows: Sequence[Profile], columns: Sequence[Profile]) -> Floats:
    """The integral of the product of each two profiles, [rows, columns].

    A profile is (gamma + 1) tau^gamma / images^(gamma + 1) up to its images, and 0 from there.
    """
    (a, s), (b, t) = _powers(rows), _powers(columns)
    a, s = a[:, None], s[:, None]
    logarithm = (a + b + 1) * np.log(np.minimum(s, t)) - (a + 1) * np.log(s) - (b + 1) * np.log(t)
    return (a + 1) * (b + 1) / (a + b + 1) * np.exp(logarithm)


def _powers(profiles: Sequence[Profile]) -> tuple[Floats, Floats]:
    """Exponent and images of each."""
    return np.array([power_of(p.std) for p in profiles]), np.array([p.images for p in profiles], dtype=np.float64)
