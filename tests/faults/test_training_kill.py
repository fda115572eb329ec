import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
STEPS = 24


def command(features: Any, out: Path) -> list[str]:
    data = ["--latents", str(features.latents), "--text", str(features.text), "--out", str(out)]
    recipe = ["--model", "tiny/2", "--steps", str(STEPS), "--global-batch", "8", "--lr", "1e-3", "--warmup", "2"]
    often = ["--device", "cpu", "--log-every", "3", "--save-every", "2", "--keep-checkpoints", "2"]
    return [sys.executable, "-m", "pipelines.train", *data, *recipe, *often]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def kill_when(process: subprocess.Popen[str], due: Callable[[], bool]) -> bool:
    """SIGKILL the process as soon as `due`; whether it was still running then."""
    while process.poll() is None:
        if due():
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return process.returncode == -signal.SIGKILL
        time.sleep(0.0005)
    return False


def weights(run: Path) -> dict[str, bytes]:
    return {
        f"{path.name}/{name}": tensor.numpy().tobytes()
        for path in [*(run / "weights").glob("*"), *(run / "checkpoints" / f"step-{STEPS:08d}").glob("*.safetensors")]
        for name, tensor in load_file(path).items()
    }


def test_a_training_killed_again_and_again_ends_with_the_same_weights(
    write_features: Callable[..., Any], tmp_path: Path
) -> None:
    features = write_features(buckets={(64, 64): 12, (32, 96): 9})
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    first = start(command(features, undisturbed))
    _, error = first.communicate(timeout=100)
    assert first.returncode == 0, error

    moments = random.Random(0)
    checkpoints = disturbed / "checkpoints"
    killed = 0
    for attempt in range(5):
        process = start(command(features, disturbed))
        done = {path.name for path in checkpoints.glob("step-*")}
        pause = moments.uniform(0.0, 0.25)

        def saving() -> bool:
            return any(".tmp-" in path.name for path in checkpoints.glob("step-*"))

        def moved_on(done: set[str] = done) -> bool:
            return any(path.name not in done and ".tmp-" not in path.name for path in checkpoints.glob("step-*"))

        if attempt % 2 == 0:
            killed += kill_when(process, saving)
        else:
            while process.poll() is None and not moved_on():
                time.sleep(0.001)
            time.sleep(pause)
            killed += kill_when(process, lambda: True)
    assert killed >= 3

    last = start(command(features, disturbed))
    _, error = last.communicate(timeout=100)
    assert last.returncode == 0, error
    assert weights(disturbed) == weights(undisturbed)
    assert not list(checkpoints.glob("*.tmp-*"))
