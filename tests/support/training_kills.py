"""A training that is killed again and again while it saves, and what must hold after each kill and at the end."""

import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fork_server import ForkServer, Kill
from safetensors.torch import load_file
from training_runs import records, saved, step_losses

from training.checkpoints import folder as ckpt
from training.weights.files import load_weights

KEEP = 2
PLACES = ("commit", "save_weights", "digest", "fsync", "rename", "replace", "link", "rmtree", "finish")
_SAVES = 3  # a kill strikes in one of the first saves of a start
_CALLS = {"save_weights": 4, "digest": 5, "fsync": 22, "rename": 3, "replace": 9, "link": 4, "rmtree": 1}  # a save
_NEVER = 10_000  # a call that does not come


class KillError(AssertionError):
    """Something does not hold."""


@dataclass(slots=True)
class Killed:
    """What the kills met."""

    where: Counter[str] = field(default_factory=Counter)  # what the save had reached
    runs: int = 0  # that came to their end, with the undisturbed run's files

    @property
    def kills(self) -> int:
        """All of them."""
        return sum(self.where.values())


@dataclass(slots=True)
class Campaign:
    """Runs in `folder`, by `server`, which serves training_child.py. `data` are the arguments that name the data."""

    server: ForkServer
    folder: Path
    data: Sequence[str]
    steps: int = 20
    seconds: float = 0.0  # that a save takes
    found: Killed = field(default_factory=Killed)

    def arguments(self, run: Path) -> list[str]:
        """A run of a tiny model that saves at every step, and every third step for good."""
        recipe = [
            "--model",
            "tiny/2",
            "--steps",
            str(self.steps),
            "--global-batch",
            "8",
            "--lr",
            "1e-3",
            "--warmup",
            "2",
        ]
        often = ["--log-every", "3", "--save-every", "1", "--keep-checkpoints", str(KEEP)]
        averages = ["--power-ema", "--power-ema-every", "5"]
        return [*self.data, "--out", str(run), *recipe, *often, *averages, "--warmup", "2", "--device", "cpu"]

    def strike(self, kills: int, moments: random.Random) -> Killed:
        """Kill so often, run after run; each goes on to its end. Raises `KillError` where something does not hold."""
        whole = self.folder / "undisturbed"
        self._demand(self.server.run(self.arguments(whole)) == 0, self.server.said)
        self.seconds = _seconds_of_a_save(whole)
        while self.found.kills < kills:
            run = self.folder / f"run-{self.found.runs}"
            while (code := self.server.run(self.arguments(run), self._moment(kills, moments))) == -signal.SIGKILL:
                self._check(run)
            self._demand(code == 0, self.server.said)
            self._compare(run, whole)
            self.found.runs += 1
        return self.found

    def _moment(self, kills: int, moments: random.Random) -> Kill:
        """One of two kinds: at a system call of a save, or at any time in it. None, once there were enough."""
        if self.found.kills >= kills:
            return ("commit", _NEVER, "before")
        if self.found.kills % 2:
            return ("commit", moments.randint(1, _SAVES), moments.uniform(0, 1.2 * self.seconds))
        place = moments.choice(PLACES)
        return (place, moments.randint(1, _SAVES * _CALLS.get(place, 1)), moments.choice(("before", "after")))

    def _check(self, run: Path) -> None:
        """After a kill: every checkpoint is whole and can be loaded, none that was committed is gone."""
        self.found.where[_reached(run)] += 1
        for folder in ckpt.folders(run):
            damage = ckpt.fault(folder)
            self._demand(damage is None, f"{folder}: {damage}")
        newest = max((_step(folder) for folder in ckpt.folders(run)), default=0)
        promised = [int(line) for line in _lines(run / "commits")]
        promised += [int(line.removeprefix("step-")) for line in _lines(run / "checkpoints" / "latest")]
        self._demand(newest >= max(promised, default=0), f"{run}: step {max(promised, default=0)} was committed")
        if newest:
            folder = ckpt.folders(run)[0]
            state = ckpt.load_state(folder)
            logged = sum(record["steps"] for record in records(run) if record["step"] <= newest)
            self._demand(logged + len(state.rows) == newest, f"{folder}: {logged} steps logged, {len(state.rows)} not")
            load_file(folder / ckpt.OPTIMISER)
        for path in [
            *run.glob("weights/[!.]*"),
            *run.glob("power-ema/[!.]*"),
            *run.glob("checkpoints/step-*[0-9]/*ema*"),
        ]:
            load_weights(path)

    def _compare(self, run: Path, whole: Path) -> None:
        """At the end: the undisturbed run's tensors, losses and snapshots, and nothing that is left over."""
        self._demand(saved(run, self.steps) == saved(whole, self.steps), f"{run}: other weights than {whole}")
        self._demand(step_losses(run) == step_losses(whole), f"{run}: other losses than {whole}")
        for folder in ("weights", "power-ema"):
            ours, theirs = ({p.name: p.read_bytes() for p in (at / folder).iterdir()} for at in (run, whole))
            self._demand(ours == theirs, f"{run / folder}: other files than in {whole / folder}")
        names = sorted(path.name for path in (run / "checkpoints").iterdir())
        kept = [f"step-{step:08d}" for step in range(self.steps - KEEP + 1, self.steps + 1)]
        self._demand(names == ["latest", *kept], f"{run}: {names} are left")

    def _demand(self, holds: bool, what: str) -> None:
        if not holds:
            raise KillError(f"after {self.found.kills} kills: {what}")


def _reached(run: Path) -> str:
    """What the save that was killed had done, by what it left."""
    checkpoints = run / "checkpoints"
    aside = [path for path in checkpoints.glob("*.tmp-*") if not path.name.endswith("removed")]
    newest = ckpt.folders(run)[:1]
    if aside:
        return "all files written, not in place" if (aside[0] / "manifest.json").exists() else "files being written"
    if not newest:
        return "before the first save"
    if [newest[0].name] != list(_lines(checkpoints / "latest")):
        return "in place, not the latest yet"
    published = [run / "weights" / name for name in (ckpt.RAW, ckpt.EMA)]
    if not all(path.exists() and path.samefile(newest[0] / path.name) for path in published):
        return "the latest, weights not published yet"
    if list(checkpoints.glob("*.tmp-removed")) or len(ckpt.folders(run)) > KEEP:
        return "old ones being removed"
    return "done, or the next not begun"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _seconds_of_a_save(run: Path) -> float:
    """From the first file that a checkpoint has to the weights' publication, of the last save."""
    folder = ckpt.folders(run)[0]
    files = [path.stat().st_mtime for path in folder.iterdir()]
    return (run / "weights").stat().st_mtime - min(files)
