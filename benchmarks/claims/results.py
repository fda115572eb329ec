"""What the runs that are done have measured."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims.alignment import ALIGNMENT
from benchmarks.claims.arms import ARMS
from benchmarks.claims.campaign import RESULT, folder_of

Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `values` by what was measured: losses, and shares of what was drawn as asked, by kind of prompt."""

    arm: str
    seed: int
    steps: int
    parameters: int
    seconds: float  # of training, all starts
    values: dict[str, float]
    curve: Curve  # (step, held-out loss of the averaged weights in the course of training)


@dataclass(frozen=True, slots=True)
class Spread:
    """A value over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of all seeds."""
        return statistics.fmean(self.values)

    def told(self, spell: str) -> str:
        """Mean (least to most), each by the format `spell`."""
        least, most = (format(value, spell) for value in (min(self.values), max(self.values)))
        return f"{format(self.mean, spell)} ({least} to {most})"


def read_results(out: Path) -> list[Result]:
    """Of every run below `out` that is done, by arm and seed."""
    found = []
    for arm in ARMS:
        for folder in sorted((out / "runs" / arm.name).glob("*")):
            if (folder / RESULT).exists():
                found.append(_read(folder))
    return found


def spread(results: Sequence[Result], arm: str, value: str) -> Spread | None:
    """A value of one arm over its seeds; None where no run has it."""
    values = tuple(result.values[value] for result in results if result.arm == arm and value in result.values)
    return Spread(values) if values else None


def differences(results: Sequence[Result], arm: str, other: str, value: str) -> tuple[float, ...]:
    """`arm` less `other`, for each seed that both have: these share the order of pictures and the noise."""
    mine, theirs = (
        {r.seed: r.values[value] for r in results if r.arm == name and value in r.values} for name in (arm, other)
    )
    return tuple(mine[seed] - theirs[seed] for seed in sorted(mine.keys() & theirs.keys()))


def steps_to(curve: Curve, loss: float) -> float | None:
    """After how many steps a curve first is at `loss` or below, between two looks by a straight line; None if never."""
    before: tuple[int, float] | None = None
    for step, value in curve:
        if value <= loss:
            if before is None or value == before[1]:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - loss) / (before[1] - value)
        before = step, value
    return None


def pixel_seconds(out: Path, seeds: Sequence[int]) -> list[float]:
    """What stage 1 took."""
    paths = [folder_of(out, "pixel", seed) / RESULT for seed in seeds]
    return [float(json.loads(path.read_text())["seconds"]) for path in paths if path.exists()]


def _read(folder: Path) -> Result:
    told = json.loads((folder / RESULT).read_text())
    values = {f"loss, {text}": float(loss) for text, loss in told["loss"].items()}
    if (folder / ALIGNMENT).exists():
        aligned = json.loads((folder / ALIGNMENT).read_text())
        values |= {f"{kind}: {name}": share for kind, shares in aligned.items() for name, share in shares.items()}
    looks = [json.loads(line) for line in (folder / "run" / "validation.jsonl").read_text().splitlines()]
    curve = tuple((int(look["step"]), float(look["ema"]["loss"])) for look in looks)
    return Result(told["arm"], told["seed"], told["steps"], told["parameters"], told["seconds"], values, curve)
