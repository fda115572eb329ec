"""The run directory: whose it is, what was begun in it, and what to go on from."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from schemas.dataset import DATASET_FILE
from schemas.errors import UserError
from schemas.record import from_json, to_json
from training.checkpoints import folder as ckpt
from training.config import Recipe, RunConfig
from training.watching.metrics import SUMMARY, RunSummary, summarise

CONFIG: Final = "config.json"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Begun:
    """What a run with a checkpoint was begun with: its recipe, and where the weights that it started from lay."""

    recipe: Recipe
    init_from: str  # a weights file, as it was given; empty for none, or if nobody wrote it down


def open_run(run: Path, config: RunConfig, stack: ExitStack, say: Say) -> Path | None:
    """Take the run directory for as long as `stack` lasts; the checkpoint to go on from, None for a fresh start.

    Raises `UserError` if it is taken, or is that of another recipe or of something else.
    """
    _check_place(run)
    stack.enter_context(ckpt.locked_run(run))
    folder = ckpt.newest(run, say)
    if folder is not None:
        ckpt.load_state(folder)  # of this version of the plan?
        _check_recipe(run, folder, config)
        ckpt.finish(run, folder, config.keep_checkpoints)
    ckpt.replace_text(run / CONFIG, to_json(config))
    return folder


def begun(run: Path) -> Begun | None:
    """What the newest checkpoint that has a recipe, whole or not, was begun with; None for a run that has none yet."""
    for folder in ckpt.folders(run):
        if (folder / ckpt.RECIPE).is_file():
            return Begun(_recipe_of(folder), _init_from(run))
    return None


def _check_place(run: Path) -> None:
    """Raise `UserError` if `run` is the directory of something else, such as a data set or a model."""
    if (run / DATASET_FILE).exists():
        raise UserError(f"{run}: a data set lies there. Choose another --out.")
    if (run / CONFIG).is_file() and not holds_run(run):
        raise UserError(
            f"{run}: its {CONFIG} is no training run's, so something else lies there. Choose another --out."
        )


def holds_run(run: Path) -> bool:
    """Whether `run` has the `config.json` of a training run."""
    try:
        return "recipe" in json.loads((run / CONFIG).read_text())
    except (OSError, ValueError, TypeError):
        return False


def write_summary(run: Path) -> RunSummary:
    """Compute the summary of the run from its metrics, and keep it there."""
    summary = summarise(run)
    ckpt.replace_text(run / SUMMARY, to_json(summary))
    return summary


def _check_recipe(run: Path, folder: Path, config: RunConfig) -> None:
    before, now = _recipe_of(folder), config.recipe
    differences = []
    if before.manifest_digest != now.manifest_digest:
        differences.append(f"the data was {before.manifest_digest}, now {now.manifest_digest}")
    if before.init_digest != now.init_digest:  # by name too: nobody knows weights by their digest
        was, here = _named(_init_from(run), before.init_digest), _named(config.init_from, now.init_digest)
        differences.append(f"--init-from was {was}, now {here}")
    reading = before.reading if None in (before.reading, now.reading) else now.reading  # a reading comes with a DiT
    rest = replace(now, manifest_digest=before.manifest_digest, init_digest=before.init_digest, reading=reading)
    differences += before.differences(rest)
    if differences:
        raise UserError(
            f"{run} was begun otherwise: {'; '.join(differences)}. Give the same settings, or choose another --out."
        )


def _named(path: str, digest: str) -> str:
    return f"{path or 'a file'} ({digest})" if digest else "not given"


def _init_from(run: Path) -> str:
    """Where the weights lay that the last start of `run` began with; empty for none, and where it cannot be read."""
    try:
        return str(json.loads((run / CONFIG).read_text())["init_from"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _recipe_of(folder: Path) -> Recipe:
    return from_json(Recipe, (folder / ckpt.RECIPE).read_text(), str(folder / ckpt.RECIPE))
