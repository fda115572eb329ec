"""Train a PixArt on precomputed latents and text: one loop, one clock.

Images seen is the clock, and a step is images seen / global batch; plan, learning rate, EMA and randomness are
functions of it. The loss is the mean over the global batch, so neither the number of ranks nor gradient accumulation
changes the gradient, but for the order of floating-point sums.
"""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from schemas.dataset import DATASET_FILE
from schemas.errors import CorruptSampleError, GuardError, UserError
from schemas.record import from_json, to_json
from training import checkpoint as ckpt
from training import post_hoc_ema
from training.config import Recipe, RunConfig
from training.data.cache import Cache
from training.data.collate import Features
from training.data.draws import Batch, draw
from training.data.manifest import Manifest
from training.data.plan import Plan, PlanState, accumulation_of, require_shares
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.reader import Fault, Reader
from training.diffusion.config import to_metadata
from training.diffusion.objective import make_objective
from training.distributed import World, join_world
from training.ema import Averages
from training.flops import pixart_flops
from training.metrics import METRICS, SUMMARY, MetricsLog, RunSummary, Window, line, summarise
from training.models.pixart import PixArt
from training.optimiser import Optimiser, learning_rate
from training.saving import Content, Saver
from training.stopping import StopSignals, interrupted
from training.weights import load_weights

CONFIG: Final = "config.json"
_STOP: Final = 1000  # beyond all numbers of signals
_SAVE_FAILED: Final = 1001
Say = Callable[[str], None]


def train(config: RunConfig, manifest: Manifest, say: Say) -> RunSummary:
    """Train, or go on training, in the run directory `config.out`; the summary of the whole run.

    Under torchrun every rank calls this. `say` gets the lines for people, on rank 0 only. Raises `UserError` for a run
    directory of another recipe, `InterruptedJobError` after a signal and `CorruptSampleError` for a damaged sample (the
    run is saved first), `GuardError` after `max_skipped` skipped steps in a row or more than `max_corrupt` damaged
    samples, `StorageError` where a disk refuses.
    """
    world = join_world(config.device)
    run = Path(config.out)
    stopped_by = 0
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        differs = world.from_first(config.recipe) != config.recipe
        if world.largest(differs):
            who = f"rank {world.rank}" if differs else "another rank"
            raise UserError(f"{who} sees other data or settings than rank 0. Give all the same.")
        folder = world.on_first(lambda: _open_run(run, config, stack, say))
        if world.largest(folder is not None and not folder.is_dir()):
            raise UserError(f"{run}: some ranks cannot see its checkpoints. Choose an --out that all machines share.")
        if folder is not None and ckpt.load_state(folder).plan.step >= config.steps:
            if world.rank == 0:
                say(f"{run} has done its {config.steps:,} steps: nothing to do. Ask for more --steps to go on.")
                ckpt.publish_weights(run, folder)
        else:
            training = Training(config, manifest, world)
            state = training.resume(folder) if folder is not None else ckpt.TrainState(training.plan.state(0, 0))
            stopped_by = training.loop(state, signals, say if world.rank == 0 else lambda _: None)
        summary = world.on_first(lambda: _write_summary(run))
    # Only on the way of success: after an error on one rank, the others may never come here.
    world.leave()
    if stopped_by:
        raise interrupted(stopped_by, summary.steps)
    return summary


@dataclass(frozen=True, slots=True, eq=False)
class _Accumulated:
    """What a rank has done of a step before its gradients are applied."""

    terms: Tensor  # [3] its part of the mean loss, mse and vb over the global batch
    samples: int  # of the global batch
    faults: tuple[Fault, ...]  # what this rank could not read
    by_sample: Tensor  # [3, N] float64: timestep, mse and weight of this rank's samples
    flops: int  # of the model on this rank's samples


class Training:
    """Everything that a loop needs, on one rank."""

    def __init__(self, config: RunConfig, manifest: Manifest, world: World) -> None:
        recipe = config.recipe
        self._config, self._recipe, self._manifest, self._world = config, recipe, manifest, world
        self._run = Path(config.out)
        self._objective = make_objective(recipe.objective)
        self.plan = Plan(manifest.population(), recipe.seed, recipe.policy)
        require_shares(self.plan, config.micro_batch, world.size)
        torch.manual_seed(recipe.seed)
        self._model = PixArt(recipe.model)
        if config.init_from:
            load_initial(self._model, Path(config.init_from))
        self._model.to(world.device).train()
        self._averages = Averages(self._model, recipe.ema)
        self._optimiser = Optimiser(self._model, recipe.optimiser)
        self._saver = Saver(self._run, config.keep_checkpoints, world, config.background)

    def resume(self, folder: Path) -> ckpt.TrainState:
        """Take over the checkpoint in `folder`."""
        self._model.load_state_dict(load_weights(folder / ckpt.RAW)[1])
        self._averages.ema.load_state_dict(load_weights(folder / ckpt.EMA)[1])
        for std, average in self._averages.power.items():
            average.load_state_dict(load_weights(folder / ckpt.POWER_EMA.format(std))[1])
        self._optimiser.load_state_dict(load_file(folder / ckpt.OPTIMISER))
        return ckpt.load_state(folder)

    def loop(self, state: ckpt.TrainState, signals: StopSignals, say: Say) -> int:
        """Train from `state` to the last step, or until a signal; its number, else 0."""
        config, world, step, images = self._config, self._world, state.plan.step, state.plan.images_seen
        model = self._distributed()
        log = MetricsLog(self._run, step, images) if world.rank == 0 else None
        batches = self._batches(range(step, config.steps))
        say(self._header(step))
        say(self._recipe.policy.describe())
        window = Window(world, state)
        with contextlib.ExitStack() as stack:
            stack.callback(batches.close)
            if log is not None:
                stack.callback(log.close)
            stack.callback(self._saver.close, say)
            stream = iter(batches)
            while step < config.steps:
                try:
                    done = self._accumulate(model, stream, window)
                    asked = world.largest(self._asked(done.faults, signals))
                    if asked == _SAVE_FAILED:
                        self._saver.wait()
                    if asked == _STOP:
                        self._stop(done.faults, self.plan.state(step, images), step > state.plan.step, window, log)
                    self._step(step, images, done, window)
                except torch.OutOfMemoryError:
                    raise UserError(
                        f"GPU memory does not hold the model and {config.micro_batch} samples at a time. Lower "
                        f"--micro-batch; the rest is accumulated and the result stays the same."
                    ) from None
                step, images = step + 1, images + done.samples
                ends = step == config.steps or asked
                if step % config.log_every == 0 or ends:
                    self._log(step, images, window, log, say)
                if step % config.save_every == 0 or self._keeps_averages(step) or ends:
                    self._save(self.plan.state(step, images), window, log)
                if ends:
                    self._saver.wait()
                if asked:
                    return asked
        return 0

    def _asked(self, faults: Sequence[Fault], signals: StopSignals) -> int:
        """Why this rank ends the run: its last save failed, samples cannot be read, or a signal's number; else 0."""
        if self._saver.failed:
            return _SAVE_FAILED
        return _STOP if self._stops(faults) else signals.received

    def _keeps_averages(self, step: int) -> bool:
        """Whether power-function averages are to outlive the checkpoint of this step."""
        return bool(self._averages.power) and step % self._config.power_ema_every == 0

    def _stops(self, faults: Sequence[Fault]) -> bool:
        """Whether samples that could not be read end the run. Storage that does not answer always does."""
        return any(self._config.on_corrupt == "stop" or not fault.damaged for fault in faults)

    def _stop(
        self, faults: Sequence[Fault], plan: PlanState, unsaved: bool, window: Window, log: MetricsLog | None
    ) -> None:
        """End the run on every rank before the step whose samples cannot be read; what was done is saved."""
        if unsaved:
            self._save(plan, window, log)
            self._saver.wait()
        found = [fault for rank in self._world.from_all(tuple(faults)) for fault in rank]
        more = f" {len(found) - 1} more samples of this step cannot be read." if len(found) > 1 else ""
        skip = " Or train without damaged samples: --on-corrupt skip." if all(fault.damaged for fault in found) else ""
        raise CorruptSampleError(f"stopped before step {plan.step + 1}: {found[0].message}{more}{skip}")

    def _step(self, step: int, images: int, done: "_Accumulated", window: Window) -> None:
        """Apply the gradients of one global batch, after `images` that were seen before."""
        self._saver.release()
        norm = self._optimiser.step(step)
        self._averages.update(step, images, images + done.samples, norm.isfinite())
        window.add(done.terms, norm, [fault.message for fault in done.faults], done.by_sample, done.flops)

    def _accumulate(self, model: nn.Module, stream: Iterator[Features], window: Window) -> "_Accumulated":
        """Forward and backward over this rank's part of a global batch.

        A sample that could not be read adds nothing, and the sum over the others is divided as if it were there.
        """
        terms, faults = torch.zeros(3, device=self._world.device), list[Fault]()
        by_sample, flops = list[Tensor](), 0
        for micro_step in itertools.count():
            asked = time.perf_counter()
            features = next(stream)
            faults += features.faults
            window.data_wait += time.perf_counter() - asked
            last = accumulation_of(features.whole, self._config.micro_batch, self._world.size) - 1
            batch = draw(features, self._manifest.facts, self._recipe.seed, self._objective.timesteps)
            with contextlib.ExitStack() as unsynced:
                if isinstance(model, DistributedDataParallel) and micro_step < last:
                    unsynced.enter_context(model.no_sync())
                sums, samples = self._loss(model, batch)
                loss = sums / features.whole
                # DDP takes the mean over ranks where the global batch needs the sum.
                torch.autograd.backward(loss[0] * self._world.size)
            terms += loss.detach()
            by_sample.append(samples)
            flops += self._flops(batch)
            if micro_step == last:
                break
        return _Accumulated(terms, features.whole, tuple(faults), torch.cat(by_sample, dim=1), flops)

    def _loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss, mse and vb, each summed over the samples of `batch` by their weights: [3]; and `by_sample` of these."""
        noised = self._objective.add_noise(batch.latents, batch.noise, batch.timesteps)
        with torch.autocast(self._world.device.type, torch.bfloat16, enabled=self._recipe.precision == "bf16"):
            output = model(noised, batch.timesteps, batch.text, batch.text_lengths, batch.sizes, batch.lengths_on_host)
        terms = self._objective.loss(output, batch.latents, batch.noise, batch.timesteps)
        # Copied, since the weights lie in memory that the next batch is read into.
        by_sample = torch.stack([values.detach().double() for values in (batch.timesteps, terms.mse, batch.weights)])
        return torch.stack([(term * batch.weights).sum() for term in terms]), by_sample

    def _flops(self, batch: Batch) -> int:
        """Operations of the model's step on `batch`, whose text counts as it is padded."""
        count, _, height, width = batch.latents.shape
        return count * pixart_flops(self._recipe.model, height, width, batch.text.shape[1]).step

    def _log(self, step: int, images: int, window: Window, log: MetricsLog | None, say: Say) -> None:
        window.settle()
        for fault in window.share_faults():
            say(f"left out: {fault}")
        self._guard(step, window)
        if log is not None:
            record = window.record(step, images, learning_rate(self._recipe.optimiser, step - 1))
            log.write(record)
            say(line(record, self._config.steps))
        window.restart()

    def _guard(self, step: int, window: Window) -> None:
        if window.longest_streak >= self._config.max_skipped:
            raise GuardError(
                f"{window.longest_streak} steps in a row up to step {step} had a gradient that is not finite, and were "
                f"skipped. Lower --lr or look at the data; the last checkpoint is in {self._run}."
            )

        if window.corrupt > self._config.max_corrupt:
            raise GuardError(
                f"{window.corrupt} damaged samples were left out up to step {step}, more than --max-corrupt "
                f"{self._config.max_corrupt} allows. Make them again, see {self._run / METRICS}; or allow more."
            )

    def _save(self, plan: PlanState, window: Window, log: MetricsLog | None) -> None:
        window.settle()
        self._guard(plan.step, window)
        state = ckpt.TrainState(
            plan=plan,
            rows=tuple(window.rows),
            seconds=window.seconds,
            data_wait=window.data_wait,
            skipped=window.skipped,
            streak=window.streak,
            corrupt=window.corrupt,
            bins=window.bins.totals,
            flops=window.flops,
        )
        self._saver.save(self._content(state), log.sync if log is not None else lambda: None)

    def _content(self, state: ckpt.TrainState) -> Content:
        facts, recipe = self._manifest.facts, self._recipe
        common = {
            "images_seen": str(state.plan.images_seen),
            "vae_scaling_factor": repr(facts.scaling_factor),
            "vae_shift_factor": repr(facts.shift_factor),
            **to_metadata(recipe.objective),
        }
        weights = {ckpt.RAW: self._model.state_dict(), ckpt.EMA: self._averages.ema.state_dict()}
        metadata = {ckpt.RAW: {**common, "kind": "raw"}, ckpt.EMA: {**common, "kind": "ema"}}
        kept, step = dict[str, Path](), state.plan.step
        for std, average in self._averages.power.items():
            file = ckpt.POWER_EMA.format(std)
            weights[file] = average.state_dict()
            metadata[file] = {**common, "kind": "ema", post_hoc_ema.WIDTH_KEY: repr(std)}
            if self._keeps_averages(step) or step == self._config.steps:
                kept[file] = self._run / post_hoc_ema.FOLDER / post_hoc_ema.snapshot_name(step, std)
        states = {ckpt.OPTIMISER: self._optimiser.state_dict()}
        texts = {ckpt.STATE: to_json(state), ckpt.RECIPE: to_json(recipe)}
        return Content(step, weights, metadata, recipe.model, states, texts, kept)

    def _distributed(self) -> nn.Module:
        if self._world.size == 1:
            return self._model
        devices = [self._world.device] if self._world.device.type == "cuda" else None
        model = DistributedDataParallel(self._model, device_ids=devices, gradient_as_bucket_view=True)
        # DDP lays out its buckets anew after the first backward pass, and the order in which ranks are summed depends
        # on the layout. A pass over nothing settles it, so that a resumed run sums as one that never stopped.
        config, device = self._recipe.model, self._world.device
        latents = torch.zeros(1, config.in_channels, config.patch, config.patch, device=device)
        text = torch.zeros(1, 8, config.caption_channels, device=device)
        one = torch.ones(1, dtype=torch.int64, device=device)
        torch.autograd.backward(model(latents, one, text, one, torch.ones(1, 3, device=device)).sum())
        self._model.zero_grad(set_to_none=True)
        return model

    def _batches(self, steps: range) -> Prefetcher:
        config = self._config
        share = Share(self._world.rank, self._world.size, config.micro_batch)
        work = micro_batches(self.plan, share, steps)
        cache = Cache(Path(config.cache), int(config.cache_gb * 1e9)) if config.cache else None
        reader = Reader(self._manifest, cache)
        return Prefetcher(self._manifest, reader, work, config.threads, config.prefetch, self._world.device)

    def _header(self, step: int) -> str:
        parameters = sum(p.numel() for p in self._model.parameters())
        return (
            f"{parameters / 1e6:,.1f}M parameters, {self._manifest.describe()}, "
            f"{self._shares()}, "
            f"{self._recipe.precision} on {self._world.device.type}, "
            f"{'from' if step == 0 else 'going on from'} step {step:,}"
        )

    def _shares(self) -> str:
        least, most = self.plan.sizes()
        ranks = self._world.size
        if least != most:
            return f"global batches of {least:,} to {most:,} samples over {ranks} ranks"
        micro_steps = accumulation_of(least, self._config.micro_batch, ranks)
        return f"global batch {least} = {ranks} ranks × {micro_steps} micro-steps"


def load_initial(model: PixArt, path: Path) -> None:
    """Start `model` from a weights file. Raises `UserError`, naming the first keys, unless all keys and shapes fit."""
    tensors, wanted = load_weights(path)[1], model.state_dict()
    odd = sorted(set(tensors) ^ set(wanted))
    odd += sorted(name for name in set(tensors) & set(wanted) if tensors[name].shape != wanted[name].shape)
    if odd:
        raise UserError(f"{path}: {len(odd)} tensors do not fit the model ({', '.join(odd[:3])}). Use other weights.")
    model.load_state_dict(tensors)


def _open_run(run: Path, config: RunConfig, stack: contextlib.ExitStack, say: Say) -> Path | None:
    """Take the run directory for as long as `stack` lasts; the checkpoint to go on from, None for a fresh start."""
    _check_place(run)
    stack.enter_context(ckpt.locked_run(run))
    folder = ckpt.newest(run, say)
    if folder is not None:
        ckpt.load_state(folder)  # of this version of the plan?
        _check_recipe(run, folder, config.recipe)
    ckpt.replace_text(run / CONFIG, to_json(config))
    return folder


def _check_place(run: Path) -> None:
    """Raise `UserError` if `run` is the directory of something else, such as a data set or a model."""
    if (run / DATASET_FILE).exists():
        raise UserError(f"{run}: a data set lies there. Choose another --out.")
    if not (run / CONFIG).is_file():
        return
    try:
        ours = "recipe" in json.loads((run / CONFIG).read_text())
    except (ValueError, TypeError):
        ours = False
    if not ours:
        raise UserError(
            f"{run}: its {CONFIG} is no training run's, so something else lies there. Choose another --out."
        )


def _write_summary(run: Path) -> RunSummary:
    summary = summarise(run)
    ckpt.replace_text(run / SUMMARY, to_json(summary))
    return summary


def _check_recipe(run: Path, folder: Path, recipe: Recipe) -> None:
    before = from_json(Recipe, (folder / ckpt.RECIPE).read_text(), str(folder / ckpt.RECIPE))
    differences = before.differences(recipe)
    if differences:
        raise UserError(
            f"{run} was begun otherwise: {'; '.join(differences)}. Give the same settings, or choose another --out."
        )
