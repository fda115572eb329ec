"""How long does training stand still for a checkpoint? `python -m benchmarks.saving_stall [--model S/2] [--turns 5]`

One process trains a model on one batch (CPU, float32) and saves weights, average and optimiser, in turns at a
standstill and beside training, in the same minute: how long `Saver.save` keeps the loop, by the step of that turn, and
how long the step takes that runs while the writer writes. The disk of --folder decides how long a save takes.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from schemas.record import to_json
from training.checkpoints import folder as ckpt
from training.checkpoints.saving import Content, Saver
from training.config import EmaConfig, OptimiserConfig
from training.data.plan import PlanState
from training.distributed.world import World
from training.ema import Averages
from training.models.config import PIXART_SIZES
from training.models.pixart import PixArt
from training.optimiser import Optimiser

_BATCH, _CELLS, _TOKENS = 4, 32, 40
_FACTS = {"kind": "raw", "images_seen": "0", "vae_scaling_factor": "1.0", "vae_shift_factor": "0.0"}


class Subject:
    """A model with all that training keeps of it, and one step."""

    def __init__(self, size: str) -> None:
        torch.manual_seed(0)
        self.config = PIXART_SIZES[size]
        self.model = PixArt(self.config)
        self.optimiser = Optimiser(self.model, OptimiserConfig())
        self.averages = Averages(self.model, EmaConfig())
        self._latents = torch.randn(_BATCH, self.config.in_channels, _CELLS, _CELLS)
        self._text = torch.randn(_BATCH, _TOKENS, self.config.caption_channels)
        self.steps = 0

    def step(self) -> float:
        """Forward, backward, optimiser, average; seconds."""
        started = time.perf_counter()
        times, lengths = torch.full((_BATCH,), 500), torch.full((_BATCH,), _TOKENS)
        torch.autograd.backward(self.model(self._latents, times, self._text, lengths, None).square().mean())
        taken = self.optimiser.step(self.steps).isfinite()
        self.averages.update(self.steps, self.steps * _BATCH, (self.steps + 1) * _BATCH, taken)
        self.steps += 1
        return time.perf_counter() - started

    def content(self) -> Content:
        """What a checkpoint of now holds."""
        state = ckpt.TrainState(PlanState("d", "p", 0, self.steps, self.steps * _BATCH))
        return Content(
            step=self.steps,
            weights={ckpt.RAW: self.model.state_dict(), ckpt.EMA: self.averages.ema.state_dict()},
            metadata={ckpt.RAW: _FACTS, ckpt.EMA: _FACTS},
            model=self.config,
            states={ckpt.OPTIMISER: self.optimiser.state_dict()},
            texts={ckpt.STATE: to_json(state), ckpt.RECIPE: "{}"},
            kept={},
        )


def seconds(act: Callable[[], None]) -> float:
    """How long `act` takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--model", default="S/2", choices=PIXART_SIZES)
    command.add_argument("--turns", type=int, default=5)
    command.add_argument("--folder", help="where checkpoints go for the time being, default: the system's")
    options = command.parse_args()
    torch.set_num_threads(1)
    subject, alone = Subject(options.model), World(0, 1, torch.device("cpu"), None)
    rows = list[tuple[float, float, float, float]]()
    with tempfile.TemporaryDirectory(prefix="stall-", dir=options.folder) as name:
        still = Saver(Path(name) / "still", 1, alone, background=False)
        beside = Saver(Path(name) / "beside", 1, alone, background=True)
        subject.step()
        beside.save(subject.content(), lambda: None)  # makes the room for copies
        beside.wait()
        size = sum(path.stat().st_size for path in ckpt.folders(Path(name) / "beside")[0].iterdir())
        for _ in range(options.turns):
            step = statistics.median(subject.step() for _ in range(3))
            stood = seconds(lambda: still.save(subject.content(), lambda: None))
            kept = seconds(lambda: beside.save(subject.content(), lambda: None))
            meanwhile = subject.step()
            beside.wait()
            rows.append((step, stood, kept, meanwhile))
    print(f"{options.model}, checkpoint of {size / 1e6:,.0f} MB, batch {_BATCH}, torch {torch.__version__}, ", end="")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}\n")
    print("| a step alone, s | save at a standstill, s | save beside training, s | the next step, s | stall in steps |")
    print("| --- | --- | --- | --- | --- |")
    for step, stood, kept, meanwhile in rows:
        print(f"| {step:.2f} | {stood:.2f} | {kept:.3f} | {meanwhile:.2f} | {kept / step:.2f} |")
    ratios = sorted(kept / step for step, _, kept, _ in rows)
    against = statistics.median(stood / kept for _, stood, kept, _ in rows)
    print(f"\nThe loop stands {statistics.median(ratios):.2f} steps (at most {ratios[-1]:.2f}; goal 1), ", end="")
    print(f"{against:.0f} times shorter than at a standstill.")


if __name__ == "__main__":
    main()
