"""See fork_server.py: training. Each checkpoint that is durable is noted in `commits` of the run directory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from fork_server import serve

import training.trainer  # noqa: F401 - so that children need not
from pipelines.train import main
from training.checkpoints import folder as ckpt
from training.checkpoints import saving
from training.optimiser import Optimiser

PLACES = {
    "commit": (ckpt, "commit"),
    "save_weights": (saving, "save_weights"),
    "digest": (ckpt, "file_digest"),
    "fsync": (os, "fsync"),
    "rename": (Path, "rename"),
    "replace": (Path, "replace"),
    "link": (os, "link"),
    "rmtree": (shutil, "rmtree"),
    "finish": (ckpt, "finish"),
    "step": (Optimiser, "step"),
}


def noting(commit: Callable[..., Path]) -> Callable[..., Path]:
    """`commit` that then notes the step."""

    def noted(run: Path, step: int, *rest: object) -> Path:
        folder = commit(run, step, *rest)
        with (run / "commits").open("a") as file:
            file.write(f"{step}\n")
        return folder

    return noted


if __name__ == "__main__":
    ckpt.commit = noting(ckpt.commit)
    serve(main, PLACES)
