"""A run that is broken off, wherever and by whatever, ends as one that never was."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from small_runs import configured, run
from training_runs import saved_files, step_losses

from schemas.errors import ExitCode, InterruptedJobError, StorageError
from training.checkpoints import saving
from training.checkpoints.folder import file_digest
from training.config import EmaConfig, RunConfig
from training.data.manifest import Manifest
from training.trainer import train
from training.weights.post_hoc_ema import FOLDER


@pytest.mark.parametrize("broken_off", [1, 2, 3, 5])
def test_a_run_resumed_at_any_step_ends_bitwise_as_if_undisturbed(
    manifest: Manifest, tmp_path: Path, broken_off: int
) -> None:
    run(configured(manifest, tmp_path / "whole"), manifest)
    run(configured(manifest, tmp_path / "parts", steps=broken_off), manifest)
    said = run(configured(manifest, tmp_path / "parts"), manifest)
    assert f"going on from step {broken_off}" in said[0]
    assert saved_files(tmp_path / "parts", 6) == saved_files(tmp_path / "whole", 6)
    assert step_losses(tmp_path / "parts") == step_losses(tmp_path / "whole")


def test_saving_beside_training_gives_the_bytes_of_saving_at_a_standstill(manifest: Manifest, tmp_path: Path) -> None:
    for background in (True, False):
        run(configured(manifest, tmp_path / str(background), save_every=1, background=background), manifest)
    for step in range(1, 7):
        assert saved_files(tmp_path / "True", step) == saved_files(tmp_path / "False", step)
    assert step_losses(tmp_path / "True") == step_losses(tmp_path / "False")


def averaging(config: RunConfig) -> RunConfig:
    recipe = dataclasses.replace(config.recipe, ema=EmaConfig(power=(0.05, 0.1)))
    return dataclasses.replace(config, recipe=recipe, power_ema_every=2, keep_checkpoints=1)


@pytest.mark.parametrize("broken_off", [1, 4])
def test_power_function_averages_go_on_bitwise_and_their_snapshots_outlive_checkpoints(
    manifest: Manifest, tmp_path: Path, broken_off: int
) -> None:
    run(averaging(configured(manifest, tmp_path / "whole")), manifest)
    run(averaging(configured(manifest, tmp_path / "parts", steps=broken_off)), manifest)
    run(averaging(configured(manifest, tmp_path / "parts")), manifest)
    whole, parts = saved_files(tmp_path / "whole", 6), saved_files(tmp_path / "parts", 6)
    assert parts == whole
    assert {"ema-power-0.05.safetensors", "ema-power-0.1.safetensors"} < whole.keys()
    assert [path.name for path in (tmp_path / "whole" / "checkpoints").glob("step-*")] == ["step-00000006"]
    kept = {path.name: path.read_bytes() for path in sorted((tmp_path / "whole" / FOLDER).iterdir())}
    assert list(kept) == [f"step-{step:08d}.std-{std}.safetensors" for step in (2, 4, 6) for std in (0.05, 0.1)]
    assert all((tmp_path / "parts" / FOLDER / name).read_bytes() == content for name, content in kept.items())
    assert kept["step-00000006.std-0.1.safetensors"] == whole["ema-power-0.1.safetensors"]


def test_a_disk_that_fills_while_training_goes_on_ends_the_run_at_the_next_step(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = saving.save_weights

    def full_at_step_2(path: Path, *rest: Any) -> None:
        if "step-00000002" in str(path):
            raise StorageError(f"{path}: no room")
        save(path, *rest)

    monkeypatch.setattr(saving, "save_weights", full_at_step_2)
    config = configured(manifest, tmp_path / "run", save_every=1, log_every=1)
    said: list[str] = []
    with pytest.raises(StorageError, match="no room"):
        train(config, manifest, said.append)
    monkeypatch.undo()
    steps = [int(line.split("/")[0].removeprefix("step ")) for line in said if line.startswith("step ")]
    assert steps[-1] in (2, 3)  # the third may be done by the time that the second's save fails
    run(config, manifest)
    run(configured(manifest, tmp_path / "whole"), manifest)
    assert saved_files(tmp_path / "run", 6) == saved_files(tmp_path / "whole", 6)


def test_a_run_resumed_from_an_older_checkpoint_trains_the_lost_steps_again(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run"), manifest)
    before, losses = saved_files(tmp_path / "run", 6), step_losses(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    run(configured(manifest, tmp_path / "run"), manifest)
    assert saved_files(tmp_path / "run", 6) == before
    assert step_losses(tmp_path / "run") == losses


def test_a_damaged_checkpoint_is_said_and_the_run_still_ends_the_same(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run"), manifest)
    before = saved_files(tmp_path / "run", 6)
    (tmp_path / "run" / "checkpoints" / "step-00000006" / "optimiser.safetensors").write_bytes(b"")
    said = run(configured(manifest, tmp_path / "run"), manifest)
    assert "step-00000006 is damaged (optimiser.safetensors has 0 bytes" in said[0]
    assert saved_files(tmp_path / "run", 6) == before


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGUSR1, ExitCode.TERMINATED),
        (signal.SIGINT, ExitCode.INTERRUPTED),
    ],
)
def test_a_signal_saves_at_the_next_step_and_the_same_command_goes_on(
    manifest: Manifest, tmp_path: Path, number: signal.Signals, code: ExitCode
) -> None:
    run(configured(manifest, tmp_path / "whole"), manifest)
    config = configured(manifest, tmp_path / "run")

    def ask_to_stop(line: str) -> None:
        if line.startswith("step 2/"):
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptedJobError, match=f"stopped by {number.name} and saved at step 3") as stopped:
        train(config, manifest, ask_to_stop)
    assert stopped.value.exit_code == code
    run(config, manifest)
    assert saved_files(tmp_path / "run", 6) == saved_files(tmp_path / "whole", 6)
    assert step_losses(tmp_path / "run") == step_losses(tmp_path / "whole")


def test_a_run_from_before_there_was_a_choice_of_objectives_goes_on(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "whole"), manifest)
    run(configured(manifest, tmp_path / "run", steps=3), manifest)
    folder = tmp_path / "run" / "checkpoints" / "step-00000003"
    for name, added in (("recipe.json", ("objective",)), ("state.json", ("bins", "flops"))):
        older = {key: value for key, value in json.loads((folder / name).read_text()).items() if key not in added}
        (folder / name).write_text(json.dumps(older))
    listed = json.loads((folder / "manifest.json").read_text())
    for file in listed["files"]:
        file |= {"bytes": (folder / file["name"]).stat().st_size, "digest": file_digest(folder / file["name"])}
    (folder / "manifest.json").write_text(json.dumps(listed))
    said = run(configured(manifest, tmp_path / "run"), manifest)
    assert "going on from step 3" in said[0]
    assert saved_files(tmp_path / "run", 6) == saved_files(tmp_path / "whole", 6)
