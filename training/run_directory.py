"""The run directory: whose it is, what was begun in it, and what to go on from."""

import json
from collections.abc import Callable
from contextlib import ExitStack
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


def open_run(run: Path, config: RunConfig, stack: ExitStack, say: Say) -> Path | None:
    """Take the run directory for as long as `stack` lasts; the checkpoint to go on from, None for a fresh start.

    Raises `UserError` if it is taken, or is that of another recipe or of something else.
    """
    _check_place(run)
    stack.enter_context(ckpt.locked_run(run))
    folder = ckpt.newest(run, say)
    if folder is not None:
        ckpt.load_state(folder)  # of this version of the plan?
        _check_recipe(run, folder, config.recipe)
        ckpt.finish(run, folder, config.keep_checkpoints)
    ckpt.replace_text(run / CONFIG, to_json(config))
    return folder


def begun(run: Path) -> Recipe | None:
    """The recipe of the newest checkpoint that has one, whole or not; None for a run that has none yet."""
    for folder in ckpt.folders(run):
        if (folder / ckpt.RECIPE).is_file():
            return _recipe_of(folder)
    return None


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


def write_summary(run: Path) -> RunSummary:
    """Compute the summary of the run from its metrics, and keep it there."""
    summary = summarise(run)
    ckpt.replace_text(run / SUMMARY, to_json(summary))
    return summary


def _check_recipe(run: Path, folder: Path, recipe: Recipe) -> None:
    differences = _recipe_of(folder).differences(recipe)
    if differences:
        raise UserError(
            f"{run} was begun otherwise: {'; '.join(differences)}. Give the same settings, or choose another --out."
        )


def _recipe_of(folder: Path) -> Recipe:
    return from_json(Recipe, (folder / ckpt.RECIPE).read_text(), str(folder / ckpt.RECIPE))
