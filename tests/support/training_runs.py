"""What a training run left behind, for comparing two of them."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file


def records(run: Path) -> list[dict[str, Any]]:
    """The lines of its metrics."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def step_losses(run: Path) -> list[float]:
    """The loss of each step."""
    return [loss for record in records(run) for loss in record["step_loss"]]


def saved(run: Path, step: int) -> dict[str, bytes]:
    """The bytes of every tensor of its checkpoint at `step`."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {
        f"{path.name}/{name}": tensor.numpy().tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def saved_files(run: Path, step: int) -> dict[str, bytes]:
    """The bytes of the same files, with the clock that weights files carry."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
