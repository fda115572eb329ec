"""What is looked at now and then while training: the held-out loss, pictures, a trace of some steps."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from training.config import RunConfig
from training.data.manifest import Manifest
from training.distributed.world import World
from training.ema import Average
from training.run_directory import Say
from training.watching.metrics import MetricsLog
from training.watching.validation import Validation, told

if TYPE_CHECKING:
    from training.watching.grids import Grids

PROFILES: Final = "profile"


class Watching:
    """Validation and pictures of one run, each every so many steps and after the last; all ranks call it together."""

    def __init__(self, config: RunConfig, manifest: Manifest, world: World, say: Say) -> None:
        self._config, self._say = config, say
        self._validation = (
            Validation(config.recipe, manifest, world, config.validate_samples, config.micro_batch)
            if config.validate_every
            else None
        )
        self._grids = _grids(config, manifest, world) if config.grid_every else None

    def due(self, step: int) -> bool:
        """Whether there is anything to look at after `step`."""
        return self._validates(step) or self._draws(step)

    def look(self, step: int, images: int, model: nn.Module, average: Average, log: MetricsLog | None) -> None:
        """Look at `model` and its `average` after `step`, and tell what was seen."""
        if self._validation is not None and self._validates(step):
            record = {"step": step, "images": images, **self._validation(model, average)}
            self._say(told(step, record))
            if log is not None:
                log.write_validation(record)
        if self._grids is not None and self._draws(step):
            pictures = self._grids(step, model, average)
            if log is not None and pictures is not None:
                log.write_pictures(pictures, images)

    def _validates(self, step: int) -> bool:
        return self._validation is not None and self._is_time(step, self._config.validate_every)

    def _draws(self, step: int) -> bool:
        return self._grids is not None and self._is_time(step, self._config.grid_every)

    def _is_time(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._config.steps


class ProfileWindow:
    """A trace of the steps from number `window[0]` up to, not including, `window[1]`, counted from 1; () for none.

    One file a rank, in Chrome's format, which Perfetto opens too.
    """

    def __init__(self, run: Path, rank: int, window: tuple[int, ...]) -> None:
        self._path = run / PROFILES / f"steps-{'-'.join(map(str, window))}-rank-{rank}.json.gz"
        self._window, self._profile = window, None if not window else _profile()
        self._running = False

    def before(self, step: int) -> None:
        """To be called before step number `step`, and after the last."""
        if self._profile is None:
            return
        if self._running and step >= self._window[1]:
            self._stop()
        elif not self._running and self._window[0] <= step < self._window[1]:
            self._profile.start()
            self._running = True

    def __enter__(self) -> "ProfileWindow":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running:
            self._stop()

    def _stop(self) -> None:
        assert self._profile is not None
        self._profile.stop()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._profile.export_chrome_trace(str(self._path))
        self._profile, self._running = None, False


def _grids(config: RunConfig, manifest: Manifest, world: World) -> "Grids":
    from training.watching.grids import Grids  # which takes seconds to import, for diffusers and transformers

    return Grids(config, manifest, world)


def _profile() -> profile:
    on_cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    return profile(activities=[ProfilerActivity.CPU, *on_cuda])
