"""One step of a run again: its global batch with its noise and timesteps, sample by sample, and nothing is changed.

Randomness is keyed by sample, so a step is known by its number. Its weights are those of the newest checkpoint before
it, from which the steps between are done again. Done by another number of ranks, or on another device, they agree
within rounding.
"""

import dataclasses
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from schemas.errors import UserError
from training.checkpoints import folder as ckpt
from training.config import RunConfig
from training.data.choices import DROPPED
from training.data.draws import Batch
from training.data.manifest import Manifest
from training.data.plan import GlobalBatch
from training.data.prefetch import Share, micro_batches
from training.distributed.world import World
from training.gradient import Gradient
from training.run_directory import Say
from training.trainer import Training


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """One sample of the step. `gradient_norm` is of its own loss alone; None where nobody looked."""

    name: str  # SHARD/KEY
    bucket: str
    visit: int  # how often the plan had used it before
    dropped: bool  # its caption, or its class
    timestep: float
    loss: float
    mse: float
    vb: float
    fault: str  # why it could not be read, empty if it could
    gradient_norm: float | None

    @property
    def finite(self) -> bool:
        """Whether all that is known of it is finite."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm or 0.0)


@dataclass(frozen=True, slots=True)
class Replay:
    """A step that was done again, up to its gradient."""

    step: int  # counted from 1, as in the log
    weights: str  # which it was done with
    exact: bool  # whether they are those that the step itself began with
    loss: float
    gradient_norm: float  # before clipping
    samples: tuple[SampleFacts, ...]

    @property
    def odd(self) -> list[SampleFacts]:
        """The samples whose loss or gradient is not finite."""
        return [sample for sample in self.samples if not sample.finite]


def replay(
    config: RunConfig,
    manifest: Manifest,
    world: World,
    step: int,
    say: Say,
    *,
    redo: bool = True,
    each: bool = False,
) -> Replay:
    """Step number `step` of the run `config`, counted from 1; on one rank.

    Without `redo` the weights are the checkpoint's as they are. With `each` every sample's own gradient is measured,
    otherwise only in micro-batches whose gradient is not finite. Raises `UserError` for a step that cannot be redone.
    """
    if step < 1:
        raise UserError(f"--step {step}: steps count from 1, as in the log.")
    last = max([config.steps, *(ckpt.step_of(folder) for folder in ckpt.folders(Path(config.out)))])
    if step > last:
        raise UserError(f"--step {step}: {config.out} has {last:,} steps. Give one of them.")
    if manifest.digest != config.recipe.manifest_digest:
        raise UserError(f"{config.out}: its data is not what it was. Replay with the data that it was trained on.")
    training = Training(config, manifest, world, say)
    folder = ckpt.at_or_before(Path(config.out), step - 1, say)
    state = training.resume(folder) if folder is not None else training.start()
    before = state.plan.step
    source = f"of checkpoint {folder.name}" if folder is not None else "that the run began with"
    if redo and before < step - 1:
        say(f"doing steps {before + 1:,} to {step - 1:,} again, from the weights {source}")
        training.redo(state, step - 1)
        source += f", and steps {before + 1:,} to {step - 1:,} done again"
    exact = redo or before == step - 1
    if not exact:
        source += f": {step - 1 - before:,} steps older than those of the step itself"
    samples, loss, norm = _measure(training, manifest, config.micro_batch, step, each)
    return Replay(step, source, exact, loss, norm, samples)


def _measure(
    training: Training, manifest: Manifest, micro_batch: int, step: int, each: bool
) -> tuple[tuple[SampleFacts, ...], float, float]:
    """The samples of the step, its loss, and the norm of its gradient."""
    model, gradient = training.model, training.gradient
    parameters = list(model.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    samples: list[SampleFacts] = []
    parts = micro_batches(training.plan, Share(0, 1, micro_batch), range(step - 1, step))
    loss = 0.0
    with closing(training.batches(range(step - 1, step))) as stream:
        for uses, features in zip(parts, stream, strict=True):
            batch = gradient.draw(features)
            losses, grads = _backward(model, gradient, batch, features.whole)
            loss += float((losses[0] * batch.weights).sum()) / features.whole
            torch._foreach_add_(total, grads)
            looked = each or not math.isfinite(_norm(grads))
            norms: list[float | None] = [None] * len(uses)
            if looked:
                norms = [_norm(_backward(model, gradient, one, 1)[1]) for one in _one_by_one(batch)]
            faults = {fault.at: fault.message for fault in features.faults}
            samples += _facts(manifest, uses, batch, losses, norms, faults)
    return tuple(samples), loss, _norm(total)


def _backward(model: nn.Module, gradient: Gradient, batch: Batch, whole: int) -> tuple[Tensor, list[Tensor]]:
    """Total, mse and vb of each sample [3, B]; and the gradient of the sum of totals by weight over `whole`."""
    losses = gradient.losses(model, batch)
    objective = (losses.total * batch.weights).sum() / whole
    found = torch.autograd.grad(objective, list(model.parameters()), allow_unused=True)
    grads = [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]
    return torch.stack([term.detach() for term in losses]), grads


def _one_by_one(batch: Batch) -> Iterator[Batch]:
    for at in range(len(batch.weights)):
        yield Batch(**{field.name: getattr(batch, field.name)[at : at + 1] for field in fields(Batch)})


def _facts(
    manifest: Manifest,
    uses: GlobalBatch,
    batch: Batch,
    losses: Tensor,
    norms: list[float | None],
    faults: dict[int, str],
) -> Iterator[SampleFacts]:
    bucket = "x".join(map(str, manifest.buckets[uses.bucket]))
    for at, row in enumerate(uses.rows.tolist()):
        total, mse, vb = losses[:, at].tolist()
        yield SampleFacts(
            name=manifest.name(row),
            bucket=bucket,
            visit=int(uses.visits[at]),
            dropped=bool(uses.variants[at] == DROPPED),
            timestep=float(batch.timesteps[at]),
            loss=total,
            mse=mse,
            vb=vb,
            fault=faults.get(at, ""),
            gradient_norm=norms[at],
        )


def _norm(grads: list[Tensor]) -> float:
    return float(nn.utils.get_total_norm(grads))


def lines(found: Replay, shown: int) -> list[str]:
    """The replay for people: samples that are not finite first, then those of the largest loss, at most `shown`."""
    out = [
        f"step {found.step:,} with the weights {found.weights}" + ("" if found.exact else " (not the same step)"),
        f"{len(found.samples):,} samples, loss {found.loss:.6g}, gradient norm {found.gradient_norm:.6g}; "
        f"{len(found.odd):,} samples are not finite",
        f"{'sample':<40} {'bucket':>9} {'visit':>5} {'timestep':>8} "
        + " ".join(f"{name:>10}" for name in ("loss", "mse", "vb", "gradient")),
    ]
    rest = sorted((s for s in found.samples if s.finite), key=lambda s: -s.loss)
    for sample in [*found.odd, *rest][:shown]:
        norm = "-" if sample.gradient_norm is None else f"{sample.gradient_norm:.4g}"
        marks = [] if sample.finite else ["NOT FINITE"]
        marks += ["condition dropped"] if sample.dropped else []
        marks += [f"not read: {sample.fault}"] if sample.fault else []
        out.append(
            f"{sample.name:<40} {sample.bucket:>9} {sample.visit:>5} {sample.timestep:>8g} {sample.loss:>10.4g} "
            f"{sample.mse:>10.4g} {sample.vb:>10.4g} {norm:>10}  {', '.join(marks)}".rstrip()
        )
    return out


def as_json(found: Replay) -> dict[str, object]:
    """The replay as JSON takes it: numbers that are not finite become null, and `finite` says so."""
    samples = [dataclasses.asdict(sample) | {"finite": sample.finite} for sample in found.samples]
    record = dataclasses.asdict(found) | {"samples": [_plain(sample) for sample in samples]}
    return _plain(record)


def _plain(record: dict[str, object]) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
