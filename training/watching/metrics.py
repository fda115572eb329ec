"""What a run says about itself: a line for people, `metrics.jsonl`, TensorBoard, and a summary computed from these.

One record a line of `metrics.jsonl`:

    step, images            the clock after the last step of the record
    steps                   how many steps it covers
    loss, mse, vb           means over them (over the finite ones); null if none is finite
    step_loss               the loss of each
    loss_by_timestep        mean mse of the samples by bin of the timestep; null where none fell into a bin
    grad_norm, lr           of the last
    seconds, data_wait      wall time, and how much of it rank 0's loop stood waiting for a batch
    skipped                 steps skipped for a non-finite gradient, since the run began
    skipped_steps           their numbers, of those that the record covers; pipelines.train replay looks into them
    corrupt                 samples left out because they are damaged, since the run began
    corrupt_samples         what was wrong with each of those that the record covers
    peak_memory             bytes on rank 0 so far: of the GPU, else of the process
    mfu                     the model's operations as a share of what the GPUs could do in bf16 (text counted as it is
                            padded); only where rank 0's GPU is of a known kind, and all are taken to be like it
"""

import contextlib
import itertools
import json
import math
import os
import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from schemas.errors import UserError
from training.checkpoints.folder import TrainState
from training.data.plan import PlanState
from training.diffusion.bins import BinnedLoss
from training.distributed.world import World
from training.gradient import Accumulated
from training.models.flops import mfu, peak_bf16

METRICS: Final = "metrics.jsonl"
VALIDATION: Final = "validation.jsonl"
SUMMARY: Final = "summary.json"
_TERMS: Final = 3  # loss, mse, vb; then the gradient's norm
_ENDS: Final = 10  # steps at each end of the run that the summary compares


class Window:
    """The steps since the last line. They stay on the device until `settle`, the only place where the host waits."""

    def __init__(self, world: World, state: TrainState) -> None:
        self.rows = list(state.rows)  # loss, mse, vb over the global batch, gradient norm: of each settled step
        self.skipped, self.streak, self.longest_streak = state.skipped, state.streak, state.streak
        self.data_wait, self.corrupt, self.flops = state.data_wait, state.corrupt, state.flops
        self.bins = BinnedLoss(world.device, totals=state.bins)
        self.faults: list[str] = []  # this rank's, then all ranks' after `share_faults`
        self._shared = state.corrupt
        self._world, self._peak = world, _peak(world.device)
        self._started = time.perf_counter() - state.seconds
        self._pending: list[Tensor] = []

    @property
    def seconds(self) -> float:
        """Wall time since the last line."""
        return time.perf_counter() - self._started

    def add(self, done: Accumulated, norm: Tensor) -> None:
        """Take in one step: what this rank did of it, and the 0-d norm of the whole gradient."""
        own = [done.terms.new_full((1,), value) for value in (len(done.faults), done.flops)]
        self._pending.append(torch.cat([done.terms, *own, norm[None]]))
        self.faults += [fault.message for fault in done.faults]
        self.data_wait += done.data_wait
        self.bins.add(*done.by_sample)

    def state(self, plan: PlanState) -> TrainState:
        """Where a run stands that has settled all steps before `plan`."""
        return TrainState(
            plan=plan,
            rows=tuple(self.rows),
            seconds=self.seconds,
            data_wait=self.data_wait,
            skipped=self.skipped,
            streak=self.streak,
            corrupt=self.corrupt,
            bins=self.bins.totals,
            flops=self.flops,
        )

    def settle(self) -> None:
        """Bring all steps to the host; every rank calls it at the same step."""
        if not self._pending:
            return
        rows = torch.stack(self._pending)
        self._pending.clear()
        rows[:, :-1] = self._world.total(rows[:, :-1].contiguous())
        self.bins.settle(self._world.total)
        for *terms, corrupt, flops, norm in rows.tolist():
            self.rows.append((*terms, norm))
            self.corrupt += int(corrupt)
            self.flops += flops
            self.streak = 0 if math.isfinite(norm) else self.streak + 1
            self.skipped += self.streak > 0
            self.longest_streak = max(self.longest_streak, self.streak)

    def share_faults(self) -> list[str]:
        """What was wrong with all samples left out since the last line, on every rank, which all call it when settled.

        The ranks speak to each other only if there is something to tell.
        """
        if self.corrupt > self._shared:
            self.faults = sorted(fault for faults in self._world.from_all(self.faults) for fault in faults)
            self._shared = self.corrupt
        return self.faults

    def skipped_steps(self, step: int) -> list[int]:
        """The numbers, counted from 1, of settled steps up to `step` whose gradient was not finite."""
        first = step - len(self.rows) + 1
        return [first + at for at, row in enumerate(self.rows) if not math.isfinite(row[_TERMS])]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within takes none of the line's time."""
        began = time.perf_counter()
        yield
        self._started += time.perf_counter() - began

    def restart(self) -> None:
        """Begin a new line."""
        self.rows.clear()
        self.faults = []
        self.longest_streak = self.streak
        self.bins.restart()
        self.flops = 0.0
        self.data_wait, self._started = 0.0, time.perf_counter()

    def record(self, step: int, images: int, lr: float) -> dict[str, Any]:
        """The settled steps as a record of `metrics.jsonl`."""
        seconds = self.seconds
        means = dict(zip(("loss", "mse", "vb"), (_mean([row[i] for row in self.rows]) for i in range(3)), strict=True))
        known = {} if self._peak is None else {"mfu": mfu(self.flops, seconds, self._peak * self._world.size)}
        return {
            "step": step,
            "images": images,
            "steps": len(self.rows),
            **means,
            "step_loss": [_finite(row[0]) for row in self.rows],
            "loss_by_timestep": self.bins.means(),
            "grad_norm": _finite(self.rows[-1][_TERMS]),
            "lr": lr,
            "seconds": seconds,
            "data_wait": self.data_wait,
            "skipped": self.skipped,
            "skipped_steps": self.skipped_steps(step),
            "corrupt": self.corrupt,
            "corrupt_samples": self.faults,
            "peak_memory": _peak_memory(self._world.device),
            **known,
        }


class MetricsLog:
    """Rank 0's record of a run. Records from beyond `step`, left by a killed process, are cut off when it is opened."""

    def __init__(self, run: Path, step: int, images: int) -> None:
        for name in (METRICS, VALIDATION):
            _cut(run / name, step)
        self._file = (run / METRICS).open("a")
        self._validation = (run / VALIDATION).open("a")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=images + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name in ("loss", "mse", "vb", "grad_norm", "lr"):
            if record[name] is not None:
                self._board.add_scalar(f"train/{name}", record[name], record["images"])
        for name, mean in record["loss_by_timestep"].items():
            if mean is not None:
                self._board.add_scalar(f"loss_by_timestep/{name}", mean, record["images"])
        if "mfu" in record:
            self._board.add_scalar("speed/mfu", record["mfu"], record["images"])
        rate = (record["images"] / record["step"]) * record["steps"] / record["seconds"]
        self._board.add_scalar("speed/images_per_second", rate, record["images"])
        self._board.add_scalar("speed/data_wait_share", record["data_wait"] / record["seconds"], record["images"])

    def write_validation(self, record: dict[str, Any]) -> None:
        """Append the held-out losses to `validation.jsonl`: see training.watching.validation."""
        self._validation.write(json.dumps(record) + "\n")
        self._validation.flush()
        for kind in ("raw", "ema"):
            for name in ("loss", "mse", "vb"):
                self._board.add_scalar(f"held_out_{kind}/{name}", record[kind][name], record["images"])
            for at in record[kind]["by_timestep"]:
                name = f"held_out_{kind}_mse_by_timestep/{at['timestep']:g}"
                self._board.add_scalar(name, at["mse"], record["images"])

    def write_pictures(self, pictures: NDArray[np.uint8], images: int) -> None:
        """Show a grid of pictures [H, W, 3]."""
        self._board.add_image("grid", pictures, images, dataformats="HWC")

    def sync(self) -> None:
        """Put the records on the disk: before a checkpoint that starts where they end."""
        for file in (self._file, self._validation):
            os.fsync(file.fileno())

    def close(self) -> None:
        """Flush everything to its file."""
        self._file.close()
        self._validation.close()
        self._board.close()


def line(record: dict[str, Any], steps: int) -> str:
    """A record as a line for people; `steps` is where the run ends."""
    seconds_a_step = record["seconds"] / record["steps"]
    values = [f"{name} {_number(record[name])}" for name in ("loss", "mse", "vb")]
    parts = [
        f"step {record['step']:,}/{steps:,}",
        f"images {record['images']:,}",
        *values,
        f"grad {_number(record['grad_norm'])}",
        f"{record['images'] / record['step'] / seconds_a_step:,.1f} img/s",
        *([f"MFU {record['mfu']:.1%}"] if "mfu" in record else []),
        f"data wait {record['data_wait'] / record['seconds']:.1%}",
        f"ETA {_duration((steps - record['step']) * seconds_a_step)}",
    ]
    parts += [f"{name.upper()} {record[name]}" for name in ("skipped", "corrupt") if record[name]]
    return "  ".join(parts)


def read_metrics(run: Path) -> Iterator[dict[str, Any]]:
    """The records of `metrics.jsonl` one by one, up to what a killed process or machine left unfinished."""
    path = run / METRICS
    if path.exists():
        with path.open("rb") as file:
            yield from itertools.takewhile(bool, map(_parse, file))


def _cut(path: Path, step: int) -> None:
    """Shorten the metrics to the whole records up to `step`."""
    end = 0
    with path.open("a+b") as file:
        file.seek(0)
        for text in file:
            record = _parse(text)
            if not record or record["step"] > step:
                break
            end += len(text)
        file.truncate(end)


def _parse(text: bytes) -> dict[str, Any]:
    """The record in a line, empty if it is torn or damaged."""
    try:
        record = json.loads(text) if text.endswith(b"\n") else {}
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did, over all its starts. Losses are null where no step of the ten was finite."""

    steps: int
    images_seen: int
    skipped_steps: int
    corrupt_samples: int
    first_loss: float | None  # mean of the first 10 steps
    last_loss: float | None  # mean of the last 10
    seconds: float  # in steps and checkpoints that count: without start-up, and what a kill undid
    images_per_second: float
    data_wait_share: float
    peak_memory_bytes: int


def summarise(run: Path) -> RunSummary:
    """The summary of the run directory `run`, from its metrics alone."""
    first: list[float | None] = []
    last: deque[float | None] = deque(maxlen=_ENDS)
    seconds = data_wait = 0.0
    peak_memory, record = 0, None
    for record in read_metrics(run):
        losses = record["step_loss"]
        first += losses[: _ENDS - len(first)]
        last.extend(losses)
        seconds += record["seconds"]
        data_wait += record["data_wait"]
        peak_memory = max(peak_memory, record["peak_memory"])
    if record is None:
        raise UserError(f"{run / METRICS} is missing or empty, so there is no summary. Restore it, or train on.")
    return RunSummary(
        steps=record["step"],
        images_seen=record["images"],
        skipped_steps=record["skipped"],
        corrupt_samples=record["corrupt"],
        first_loss=_mean(first),
        last_loss=_mean(last),
        seconds=seconds,
        images_per_second=record["images"] / seconds,
        data_wait_share=data_wait / seconds,
        peak_memory_bytes=peak_memory,
    )


def table(summary: RunSummary) -> str:
    """The summary for people."""
    rows = [
        ("steps", f"{summary.steps:,}"),
        ("images seen", f"{summary.images_seen:,}"),
        ("skipped steps", f"{summary.skipped_steps:,}"),
        ("corrupt samples", f"{summary.corrupt_samples:,}"),
        (f"loss, first {_ENDS} steps", _number(summary.first_loss)),
        (f"loss, last {_ENDS} steps", _number(summary.last_loss)),
        ("time in steps", _duration(summary.seconds)),
        ("images a second", f"{summary.images_per_second:,.1f}"),
        ("waiting for data", f"{summary.data_wait_share:.1%}"),
        ("peak memory", f"{summary.peak_memory_bytes / 2**30:.2f} GiB"),
    ]
    return "\n".join(f"{name:<22}{value:>14}" for name, value in rows)


def _mean(values: Iterable[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(finite) if finite else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> str:
    return "non-finite" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _peak(device: torch.device) -> float | None:
    """Operations a second of dense bf16 products on `device`; None where nobody knows."""
    return peak_bf16(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
