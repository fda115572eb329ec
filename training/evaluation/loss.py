"""The loss on held-out samples by timestep: the same samples, timesteps and noise each time, so that models compare.

Each sample is seen at every timestep of a fixed, even grid. Its noise and its draw from the posterior are keyed by
(seed, place in the grid, sample id), its caption is its first variant, nothing is dropped or flipped. So the numbers
depend neither on batches, nor on the order of samples, nor on which others are there.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.errors import UserError
from training.data.collate import Features
from training.data.draws import draw
from training.data.held_out import HELD_OUT_SEED, held_out_draws
from training.data.manifest import Manifest
from training.data.plan import GlobalBatch
from training.data.sources import Facts
from training.diffusion.config import FLOW, ObjectiveConfig
from training.diffusion.objective import FLOW_TIME, make_objective
from training.diffusion.schedule import TIMESTEPS
from training.network import Network

LOSS_SEED: Final = HELD_OUT_SEED
"""Apart from the seeds that people give to training, so that a model has not been trained on these very noises."""


@dataclass(frozen=True, slots=True)
class AtTimestep:
    """Means over samples at one timestep, and the standard error of `mse`."""

    timestep: float
    mse: float
    mse_error: float | None  # None for one sample
    vb: float
    loss: float  # what training minimises: weighted mse + vb


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """`mse` is the mean over samples of each one's mean over the grid, with its standard error over samples."""

    samples: int
    seed: int
    mse: float
    mse_error: float | None  # None for one sample
    vb: float
    loss: float
    by_timestep: tuple[AtTimestep, ...]


def grid(objective: ObjectiveConfig, count: int) -> Tensor:
    """`count` timesteps in the middle of as many equal parts of all: int64 [K], or float32 under flow matching.

    Even also where training draws them otherwise. Raises `UserError` for a count that does not fit.
    """
    if not 1 <= count <= TIMESTEPS:
        raise UserError(f"{count} timesteps do not fit. Use 1 to {TIMESTEPS}.")
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (middles * FLOW_TIME).float() if objective.prediction == FLOW else (middles * TIMESTEPS).long()


def held_out_rows(manifest: Manifest, count: int, seed: int, share: float = 0.0) -> NDArray[np.int64]:
    """`count` rows of the manifest, all for 0: those whose ids hash lowest under `seed`, in order of rows.

    With `share`, only of those that a training with this share held out keeps to itself.
    Raises `UserError` if there are none.
    """
    draws = held_out_draws(manifest.sample, seed)
    lowest = np.argsort(draws, kind="stable")[: count or len(manifest)]
    rows = np.sort(lowest[draws[lowest] < share] if share else lowest)
    if not len(rows):
        raise UserError(
            f"--held-out {share:g} holds out none of {len(manifest):,} samples. Hold out more, or ask as training did."
        )
    return rows


def held_out_batches(manifest: Manifest, rows: NDArray[np.int64], batch: int) -> Iterator[GlobalBatch]:
    """`rows` in batches of one bucket and at most `batch` samples."""
    for bucket in np.unique(manifest.bucket[rows]):
        own = rows[manifest.bucket[rows] == bucket]
        for start in range(0, len(own), batch):
            part = own[start : start + batch]
            variants = np.argmax(manifest.tokens[part] > 0, axis=1) if manifest.text else np.zeros(len(part))
            yield GlobalBatch(
                bucket=int(bucket),
                rows=part,
                visits=np.zeros(len(part), np.int64),
                samples=manifest.sample[part],
                variants=variants.astype(np.int8),
                flipped=np.zeros(len(part), np.bool_),
                whole=len(part),
            )


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """How the loss of a model is measured."""

    network: Network
    objective: ObjectiveConfig
    facts: Facts
    timesteps: Tensor  # [K], see `grid`
    seed: int = LOSS_SEED
    autocast: bool = False  # bfloat16 over float32 weights

    @torch.no_grad()
    def measure(self, model: nn.Module, batches: Iterable[Features]) -> HeldOutLoss:
        """The loss of `model`, in evaluation mode, on `batches` at each timestep.

        Raises `UserError` for a sample that cannot be read: a mean over the others would be another number.
        """
        found = np.concatenate([self.losses(model, features) for features in batches], axis=2)
        return summarised(found, self.timesteps.tolist(), self.seed)

    @torch.no_grad()
    def losses(self, model: nn.Module, features: Features) -> NDArray[np.float64]:
        """Total, mse and vb of each sample of a batch at each timestep: [K, 3, B]. Raises as `measure` does."""
        if features.faults:
            raise UserError(f"{features.faults[0].message} Mend the data, or leave the sample out with --select.")
        return np.stack([self._at(model, features, place) for place in range(len(self.timesteps))])

    def _at(self, model: nn.Module, features: Features, place: int) -> NDArray[np.float64]:
        """Total, mse and vb of each sample at timestep number `place`: [3, B]."""
        objective, timestep = make_objective(self.objective), self.timesteps[place]
        here = replace(features, visits=torch.full_like(features.visits, place))
        batch = draw(here, self.facts, self.seed, lambda uniform: timestep.to(uniform.device).expand(len(uniform)))
        noised = objective.add_noise(batch.latents, batch.noise, batch.timesteps)
        with torch.autocast(noised.device.type, torch.bfloat16, enabled=self.autocast):
            output = self.network.predict(model, noised, batch)
        terms = objective.loss(output, batch.latents, batch.noise, batch.timesteps)
        return torch.stack([term.double() for term in terms]).cpu().numpy()


def summarised(losses: NDArray[np.float64], timesteps: Sequence[float], seed: int) -> HeldOutLoss:
    """The means of `losses` [K, 3, N]: of each timestep total, mse and vb of each sample."""
    total, mse, vb = losses.mean(axis=(0, 2))
    return HeldOutLoss(
        samples=losses.shape[2],
        seed=seed,
        mse=float(mse),
        mse_error=_standard_error(losses[:, 1].mean(axis=0)),
        vb=float(vb),
        loss=float(total),
        by_timestep=tuple(
            AtTimestep(at, float(own[1].mean()), _standard_error(own[1]), float(own[2].mean()), float(own[0].mean()))
            for at, own in zip(map(float, timesteps), losses, strict=True)
        ),
    )


def _standard_error(values: NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
