"""Train a model on precomputed features: one loop, one clock.

Images seen is the clock, and a step is images seen / global batch; plan, learning rate, EMA and randomness are
functions of it. The loss is the mean over the global batch, so neither the number of ranks nor gradient accumulation
changes the gradient, but for the order of floating-point sums.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file
from torch import nn

from schemas.errors import CorruptSampleError, GuardError, UserError
from training.checkpoints import folder as ckpt
from training.checkpoints.contents import content_of
from training.checkpoints.saving import Saver
from training.config import RunConfig
from training.cost.ledger import CostMeter
from training.data.cache import Cache
from training.data.held_out import without_held_out
from training.data.manifest import Manifest
from training.data.plan import Plan, PlanState, accumulation_of, require_shares
from training.data.prefetch import Prefetcher, Share, micro_batches
from training.data.reader import Fault, Reader
from training.determinism import deterministic
from training.diffusion.objective import make_objective
from training.distributed.parallel import over_ranks
from training.distributed.world import World, join_world
from training.ema import Averages
from training.execution import set_up
from training.gradient import Accumulated, Gradient
from training.network import network_of, smallest_batch
from training.optimiser import Optimiser, learning_rate
from training.run_directory import Say, open_run, write_summary
from training.stopping import StopSignals, interrupted
from training.watching.metrics import METRICS, MetricsLog, RunSummary, Window, line
from training.watching.periodic import ProfileWindow, Watching
from training.weights import post_hoc_ema
from training.weights.files import load_any_weights
from training.weights.handoff import hand_over

_STOP: Final = 1000  # beyond all numbers of signals
_SAVE_FAILED: Final = 1001


def train(config: RunConfig, manifest: Manifest, say: Say) -> RunSummary:
    """Train, or go on training, in the run directory `config.out`; the summary of the whole run.

    Under torchrun every rank calls this. `say` gets the lines for people, on rank 0 only. Raises `UserError` for a run
    directory of another recipe, `InterruptedJobError` after a signal and `CorruptSampleError` for a damaged sample (the
    run is saved first), `GuardError` after `max_skipped` skipped steps in a row or more than `max_corrupt` damaged
    samples, `StorageError` where a disk refuses.
    """
    run = Path(config.out)
    stopped_by = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(deterministic(config))
        world = join_world(config.device)
        signals = stack.enter_context(StopSignals())
        differs = world.from_first(config.recipe) != config.recipe
        if world.largest(differs):
            who = f"rank {world.rank}" if differs else "another rank"
            raise UserError(f"{who} sees other data or settings than rank 0. Give all the same.")
        folder = world.on_first(lambda: open_run(run, config, stack, say))
        if world.largest(folder is not None and not folder.is_dir()):
            raise UserError(f"{run}: some ranks cannot see its checkpoints. Choose an --out that all machines share.")
        if folder is not None and ckpt.load_state(folder).plan.step >= config.steps:
            if world.rank == 0:
                say(f"{run} has done its {config.steps:,} steps: nothing to do. Ask for more --steps to go on.")
        else:
            training = Training(config, manifest, world, say if world.rank == 0 else lambda _: None)
            state = training.resume(folder) if folder is not None else training.start()
            stopped_by = training.loop(state, signals)
        summary = world.on_first(lambda: write_summary(run))
    # Only on the way of success: after an error on one rank, the others may never come here.
    world.leave()
    if stopped_by:
        raise interrupted(stopped_by, summary.steps)
    return summary


class Training:
    """Everything that a loop needs, on one rank. `start` or `resume` comes first, then `loop`.

    `model`, `plan`, `gradient` and `batches` are there for `replay` as well.
    """

    def __init__(self, config: RunConfig, manifest: Manifest, world: World, say: Say) -> None:
        recipe = config.recipe
        self._config, self._recipe, self._manifest, self._world, self._say = config, recipe, manifest, world, say
        self._run = Path(config.out)
        self._cost = CostMeter(self._run, world)
        self._network = network_of(recipe.model)
        self._network.require(manifest)
        self.plan = Plan(without_held_out(manifest.population(), recipe.held_out), recipe.seed, recipe.policy)
        require_shares(self.plan, config.micro_batch, world.size)
        torch.manual_seed(recipe.seed)
        self.model = self._network.build().to(world.device).train()
        self._saver = Saver(self._run, config.keep_checkpoints, world, config.background)
        self.gradient = Gradient(
            network=self._network,
            objective=make_objective(recipe.objective),
            facts=manifest.facts,
            world=world,
            seed=recipe.seed,
            micro_batch=config.micro_batch,
            autocast=recipe.precision == "bf16",
        )

    def start(self) -> ckpt.TrainState:
        """Begin with weights drawn at random, or with those that the run starts from."""
        if self._config.init_from:
            path, recipe = Path(self._config.init_from), self._recipe
            state, report = hand_over(path, self.model.state_dict(), recipe.model, recipe.reading, recipe.seed)
            self.model.load_state_dict(state)
            for said in (*report.lines(), *report.changes(recipe.objective, self._manifest.facts)):
                self._say(said)
        self._set_up()
        return ckpt.TrainState(self.plan.state(0, 0))

    def resume(self, folder: Path) -> ckpt.TrainState:
        """Take over the checkpoint in `folder`."""
        self.model.load_state_dict(load_any_weights(folder / ckpt.RAW)[1])
        self._set_up()
        self._averages.ema.load_state_dict(load_any_weights(folder / ckpt.EMA)[1])
        for std, average in self._averages.power.items():
            average.load_state_dict(load_any_weights(folder / ckpt.POWER_EMA.format(std))[1])
        self._optimiser.load_state_dict(load_file(folder / ckpt.OPTIMISER))
        return ckpt.load_state(folder)

    def _set_up(self) -> None:
        """Once the weights are there: how they are computed with, what follows them, what moves them."""
        for said in set_up(self.model, self._config, self._manifest, self._world):
            self._say(said)
        self._averages = Averages(self.model, self._recipe.ema)
        self._optimiser = Optimiser(self.model, self._recipe.optimiser)

    def loop(self, state: ckpt.TrainState, signals: StopSignals) -> int:
        """Train from `state` to the last step, or until a signal; its number, else 0."""
        config, world, step, images = self._config, self._world, state.plan.step, state.plan.images_seen
        model, first = self._over_ranks(), world.rank == 0
        self._cost.start(images)
        for said in (self._header(step), *config.about, self._recipe.policy.describe()):
            self._say(said)
        with contextlib.ExitStack() as stack:
            batches = stack.enter_context(contextlib.closing(self.batches(range(step, config.steps))))
            log = stack.enter_context(contextlib.closing(MetricsLog(self._run, step, images))) if first else None
            stack.callback(self._saver.close, self._say)
            trace = stack.enter_context(ProfileWindow(self._run, world.rank, config.profile))
            watching = Watching(config, self._manifest, world, self._say)
            stream, window = iter(batches), Window(world, state)
            while step < config.steps:
                trace.before(step + 1)
                try:
                    done = self.gradient.accumulate(model, stream)
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
                ends = step == config.steps or bool(asked)
                if step % config.log_every == 0 or ends:
                    self._log(step, images, window, log)
                if watching.due(step):
                    self._look(step, images, watching, window, log)
                if step % config.save_every == 0 or self._keeps_averages(step) or ends:
                    self._save(self.plan.state(step, images), window, log)
                if ends:
                    self._saver.wait()
                if asked:
                    return asked
        return 0

    def _step(self, step: int, images: int, done: Accumulated, window: Window) -> None:
        """Apply the gradients of one global batch after `images` seen; where they are not finite, no rank does."""
        self._saver.release()
        norm = self._optimiser.step(step)
        self._averages.update(step, images, images + done.samples, norm.isfinite())
        window.add(done, norm)

    def _asked(self, faults: Sequence[Fault], signals: StopSignals) -> int:
        """Why this rank ends the run: its last save failed, samples cannot be read, or a signal's number; else 0."""
        if self._saver.failed:
            return _SAVE_FAILED
        return _STOP if self._stops(faults) else signals.received

    def _keeps_averages(self, step: int) -> bool:
        """Whether power-function averages are to outlive the checkpoint of this step."""
        return bool(self._averages.power) and step % self._config.power_ema_every == 0

    def _look(self, step: int, images: int, watching: Watching, window: Window, log: MetricsLog | None) -> None:
        """Validation and pictures, whose time is not training's."""
        self._saver.release()
        window.settle()  # else the GPU would still be busy with training in the time that is not counted
        with window.paused():
            watching.look(step, images, self.model, self._averages.ema, log)

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

    def _log(self, step: int, images: int, window: Window, log: MetricsLog | None) -> None:
        window.settle()
        for fault in window.share_faults():
            self._say(f"left out: {fault}")
        for skipped in window.skipped_steps(step):
            self._say(f"step {skipped:,} skipped, its gradient is not finite. Look into it: {self._replay(skipped)}")
        self._guard(step, window)
        if log is not None:
            record = window.record(step, images, learning_rate(self._recipe.optimiser, step - 1))
            log.write(record)
            self._say(line(record, self._config.steps))
        self._cost.tick(images)
        window.restart()

    def _guard(self, step: int, window: Window) -> None:
        if window.longest_streak >= self._config.max_skipped:
            raise GuardError(
                f"{window.longest_streak} steps in a row up to step {step} had a gradient that is not finite, and were "
                f"skipped. Lower --lr or look at the data; the last checkpoint is in {self._run}. Look into one: "
                f"{self._replay(step)}."
            )

        if window.corrupt > self._config.max_corrupt:
            raise GuardError(
                f"{window.corrupt} damaged samples were left out up to step {step}, more than --max-corrupt "
                f"{self._config.max_corrupt} allows. Make them again, see {self._run / METRICS}; or allow more."
            )

    def _replay(self, step: int) -> str:
        return f"python -m pipelines.train replay --out {self._run} --step {step}"

    def _save(self, plan: PlanState, window: Window, log: MetricsLog | None) -> None:
        window.settle()
        self._guard(plan.step, window)
        kept = self._keeps_averages(plan.step) or plan.step == self._config.steps
        content = content_of(
            window.state(plan),
            self._recipe,
            self._manifest.facts,
            self.model,
            self._averages,
            self._optimiser,
            self._run / post_hoc_ema.FOLDER if kept else None,
        )
        self._saver.save(content, log.sync if log is not None else lambda: None)
        self._cost.settle(plan.images_seen)

    def _over_ranks(self) -> nn.Module:
        smallest = smallest_batch(self._recipe.model, self._world.device)
        # In the run's precision: packed attention takes no other.
        return over_ranks(
            self.model, self._world, lambda model: self.gradient.predict(model, smallest.latents, smallest)
        )

    def redo(self, state: ckpt.TrainState, step: int) -> None:
        """Do the steps from `state` up to number `step` again, on one rank; nothing of it is logged or saved."""
        images = state.plan.images_seen
        with contextlib.closing(self.batches(range(state.plan.step, step))) as batches:
            stream = iter(batches)
            for number in range(state.plan.step, step):
                done = self.gradient.accumulate(self.model, stream)
                self._step(number, images, done, Window(self._world, state))
                images += done.samples

    def batches(self, steps: range) -> Prefetcher:
        """This rank's micro-batches of `steps`, in order; close it."""
        config = self._config
        share = Share(self._world.rank, self._world.size, config.micro_batch)
        work = micro_batches(self.plan, share, steps)
        cache = Cache(Path(config.cache), int(config.cache_gb * 1e9)) if config.cache else None
        manifest = self._network.with_null(self._manifest, self.model)
        return Prefetcher(manifest, Reader(manifest, cache), work, config.threads, config.prefetch, self._world.device)

    def _header(self, step: int) -> str:
        parameters = sum(p.numel() for p in self.model.parameters())
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
