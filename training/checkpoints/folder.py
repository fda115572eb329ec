"""Checkpoints that are whole or not there.

    RUN/checkpoints/step-00000100/raw.safetensors        weights
                                  ema.safetensors        averaged weights
                                  ema-power-STD.safetensors  the same, a file for each width of --power-ema
                                  optimiser.safetensors  the moments, and AdamW's step counts, by parameter name
                                  state.json             clock, plan state, metrics not yet logged
                                  recipe.json            what decides the weights
                                  manifest.json          size and digest of each of these
    RUN/checkpoints/latest                               name of the newest, written last

A checkpoint is written beside its place as `step-00000100.tmp-PID`, files and folder are flushed to disk, and one
rename puts it there; only then is `latest` replaced, the weights are put into RUN/weights, and old ones are removed.
Reading trusts no name: the newest folder whose files agree with their manifest is taken.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import xxhash
from safetensors import SafetensorError

from schemas.errors import SchemaError, StorageError, UserError
from schemas.record import from_json, to_json
from training.data.plan import PLAN_VERSION, PlanState
from training.weights.files import EMA_WEIGHTS, RAW_WEIGHTS, sync

RAW: Final = "raw.safetensors"
EMA: Final = "ema.safetensors"
POWER_EMA: Final = "ema-power-{:g}.safetensors"  # by width
OPTIMISER: Final = "optimiser.safetensors"
STATE: Final = "state.json"
RECIPE: Final = "recipe.json"
_MANIFEST: Final = "manifest.json"
_LATEST: Final = "latest"
_FOLDER: Final = "checkpoints"
_NAME: Final = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class TrainState:
    """Where a run stands. `rows` are the steps since the last line of metrics, see training.watching.metrics.Window."""

    plan: PlanState
    rows: tuple[tuple[float, ...], ...] = ()
    seconds: float = 0.0  # since that line
    data_wait: float = 0.0
    skipped: int = 0  # steps skipped for a non-finite gradient so far
    streak: int = 0  # of those, how many in a row up to now
    corrupt: int = 0  # samples left out so far, because they are damaged
    bins: tuple[tuple[float, float], ...] = ()  # since that line: sum and count of the loss, by bin of the timestep
    flops: float = 0.0  # since that line: the model's operations, of all ranks


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    bytes: int
    digest: str  # xxh3_128


@dataclass(frozen=True, slots=True)
class _Manifest:
    files: tuple[_File, ...]


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Hold the run directory alone, until the block or the process ends.

    Raises `UserError` if another process holds it, `StorageError` if it is no directory that can be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock = (run / ".lock").open("w")
    except OSError as error:
        raise StorageError(f"{run}: cannot be written ({error.strerror}). Free it, or choose another --out.") from None
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{run}: another training writes here. Wait for it, or choose another --out.") from None
        yield


def commit(run: Path, step: int, keep: int, write: Callable[[Path], None]) -> Path:
    """Make the checkpoint of `step` from what `write` puts into the folder it is given, and `finish` it.

    Raises `StorageError` if the disk refuses; what was there before is then untouched.
    """
    final = run / _FOLDER / _name(step)
    aside = final.with_name(f"{final.name}.tmp-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        write(aside)
        files = tuple(_File(path.name, path.stat().st_size, file_digest(path)) for path in sorted(aside.iterdir()))
        (aside / _MANIFEST).write_text(to_json(_Manifest(files)))
        for path in aside.iterdir():
            path.chmod(0o644)  # safetensors writes files that only their owner can read
            sync(path)
        sync(aside)
        if final.exists():
            _remove(final)
        aside.rename(final)
        sync(final.parent)
        sync(run)  # which names that folder
        finish(run, final, keep)
    except StorageError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(f"{final}: cannot be written ({error}). Free space, then run the same command.") from None
    return final


def finish(run: Path, folder: Path, keep: int) -> None:
    """What follows once the checkpoint `folder` is in place; also after a kill in the middle of it.

    It becomes the latest, its weights are put where readers of the run look for them, and all but the newest `keep` are
    removed.
    """
    replace_text(folder.parent / _LATEST, folder.name + "\n")
    for name, place in ((RAW, RAW_WEIGHTS), (EMA, EMA_WEIGHTS)):
        publish_file(folder / name, run / place)
    older = folders(run)
    for old in older[older.index(folder) + keep :]:  # what is newer was damaged, or this would not be written
        _remove(old)


def newest(run: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a run, None if it has none at all. Says which damaged ones were passed over.

    Clears away what killed processes left half-written; hold the lock. Raises `UserError` if all are damaged.
    """
    for leftover in (run / _FOLDER).glob("*.tmp-*"):
        shutil.rmtree(leftover)
    found = folders(run)
    for folder in found:
        damage = fault(folder)
        if damage is None:
            return folder
        say(f"checkpoint {folder.name} is damaged ({damage}); looking for an older one")
    if found:
        raise UserError(f"{run}: none of {len(found)} checkpoints is whole. Restore one, or choose another --out.")
    return None


def at_or_before(run: Path, step: int, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint of a run at `step` or before; None if it has none. Changes nothing.

    Says which damaged ones were passed over.
    """
    for folder in folders(run):
        match = _NAME.fullmatch(folder.name)
        if match is None or int(match[1]) > step:
            continue
        found = fault(folder)
        if found is None:
            return folder
        say(f"checkpoint {folder.name} is damaged ({found}); looking for an older one")
    return None


def load_state(folder: Path) -> TrainState:
    """The state in a checkpoint. Raises `UserError` if it follows another version of the plan."""
    text = (folder / STATE).read_text()
    try:  # looked at before the rest, since another version may have other fields
        version = json.loads(text)["plan"]["plan_version"]
    except (ValueError, KeyError, TypeError):
        version = PLAN_VERSION
    if version != PLAN_VERSION:
        raise UserError(
            f"{folder}: follows plan v{version}, this latentmill v{PLAN_VERSION}. "
            f"Go on with the latentmill that wrote it."
        )
    return from_json(TrainState, text, str(folder / STATE))


def publish_file(source: Path, target: Path) -> None:
    """Give a file another name, which outlives the first: whole or not at all, without a copy if the disk can."""
    aside = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.unlink(missing_ok=True)
    try:
        os.link(source, aside)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, aside)
        sync(aside)
    aside.replace(target)
    aside.unlink(missing_ok=True)  # still there if both names were links to one file
    sync(target.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text)
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def file_digest(path: Path) -> str:
    """xxh3_128 of a file, as hexadecimal."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()


def _name(step: int) -> str:
    return f"step-{step:08d}"


def folders(run: Path) -> list[Path]:
    """The checkpoints of a run, newest first, whole or not. A copy that somebody made beside them is none of ours."""
    found = {path: _NAME.fullmatch(path.name) for path in (run / _FOLDER).glob("step-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match}
    return sorted(steps, key=lambda path: steps[path], reverse=True)


def step_of(folder: Path) -> int:
    """The step of a checkpoint, by its name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else 0


def fault(folder: Path) -> str | None:
    """Why a checkpoint cannot be used, None if it can."""
    try:
        manifest = from_json(_Manifest, (folder / _MANIFEST).read_text(), _MANIFEST)
        for file in manifest.files:
            path = folder / file.name
            if path.stat().st_size != file.bytes:
                return f"{file.name} has {path.stat().st_size} bytes, expected {file.bytes}"
            if file_digest(path) != file.digest:
                return f"{file.name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, UnicodeDecodeError, SchemaError) as error:
        return str(error)
    return None


def _remove(folder: Path) -> None:
    """Remove a checkpoint; killed half-way, what is left does not look like one."""
    doomed = folder.with_name(f"{folder.name}.tmp-removed")
    folder.rename(doomed)
    shutil.rmtree(doomed)
