import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import LEARN, MODEL, configured

from schemas.errors import ExitCode, GuardError, InterruptedJobError, StorageError, UserError
from training.checkpoints import saving
from training.checkpoints.folder import file_digest
from training.config import EmaConfig, RunConfig
from training.data.manifest import Manifest, open_manifest
from training.diffusion.config import ObjectiveConfig, from_metadata, to_metadata
from training.diffusion.objective import Diffusion
from training.sampling.guidance import sample
from training.trainer import train
from training.watching.metrics import read_metrics
from training.weights.files import load_model, load_weights
from training.weights.post_hoc_ema import FOLDER


@pytest.fixture
def manifest(write_features: Callable[..., Any]) -> Manifest:
    made = write_features(buckets={(64, 64): 9, (32, 96): 5})
    return open_manifest(str(made.latents), str(made.text))


def run(config: RunConfig, manifest: Manifest) -> list[str]:
    said: list[str] = []
    train(config, manifest, said.append)
    return said


def saved(run: Path, step: int) -> dict[str, bytes]:
    """The weights files of a checkpoint and its optimiser's, byte by byte."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def tensors(run: Path, step: int) -> dict[str, bytes]:
    """Every tensor of a checkpoint, bit by bit: without the clock that weights files carry."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    return {
        f"{path.name}/{name}": tensor.numpy().tobytes()
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def records(run: Path) -> list[dict[str, Any]]:
    """What was measured, without what the clock and the memory say."""
    timed = ("seconds", "data_wait", "peak_memory")
    return [{name: value for name, value in record.items() if name not in timed} for record in read_metrics(run)]


def step_losses(run: Path) -> list[float]:
    return [loss for record in read_metrics(run) for loss in record["step_loss"]]


def test_training_lowers_the_loss_and_leaves_weights_and_a_summary(manifest: Manifest, tmp_path: Path) -> None:
    summary = train(configured(manifest, tmp_path / "run", steps=40, save_every=40), manifest, lambda _: None)
    assert (summary.steps, summary.images_seen, summary.skipped_steps) == (40, 160, 0)
    assert summary.first_loss is not None
    assert summary.last_loss is not None
    assert summary.last_loss < 0.9 * summary.first_loss
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["images_seen"] == 160
    for kind in ("ema", "raw"):
        config, tensors, metadata = load_weights(tmp_path / "run" / "weights" / f"{kind}.safetensors")
        assert config == MODEL
        assert metadata == {
            "images_seen": "160",
            "kind": kind,
            "stage": "",
            **to_metadata(ObjectiveConfig()),
            "vae_scaling_factor": "0.18215",
            "vae_shift_factor": "0.0",
        }
        assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


@pytest.mark.parametrize("broken_off", [1, 2, 3, 5])
def test_a_run_resumed_at_any_step_ends_bitwise_as_if_undisturbed(
    manifest: Manifest, tmp_path: Path, broken_off: int
) -> None:
    run(configured(manifest, tmp_path / "whole"), manifest)
    run(configured(manifest, tmp_path / "parts", steps=broken_off), manifest)
    said = run(configured(manifest, tmp_path / "parts"), manifest)
    assert f"going on from step {broken_off}" in said[0]
    assert saved(tmp_path / "parts", 6) == saved(tmp_path / "whole", 6)
    assert step_losses(tmp_path / "parts") == step_losses(tmp_path / "whole")


def test_saving_beside_training_gives_the_bytes_of_saving_at_a_standstill(manifest: Manifest, tmp_path: Path) -> None:
    for background in (True, False):
        run(configured(manifest, tmp_path / str(background), save_every=1, background=background), manifest)
    for step in range(1, 7):
        assert saved(tmp_path / "True", step) == saved(tmp_path / "False", step)
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
    whole, parts = saved(tmp_path / "whole", 6), saved(tmp_path / "parts", 6)
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
    assert saved(tmp_path / "run", 6) == saved(tmp_path / "whole", 6)


def test_a_run_resumed_from_an_older_checkpoint_trains_the_lost_steps_again(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run"), manifest)
    before, losses = saved(tmp_path / "run", 6), step_losses(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    run(configured(manifest, tmp_path / "run"), manifest)
    assert saved(tmp_path / "run", 6) == before
    assert step_losses(tmp_path / "run") == losses


def test_a_damaged_checkpoint_is_said_and_the_run_still_ends_the_same(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run"), manifest)
    before = saved(tmp_path / "run", 6)
    (tmp_path / "run" / "checkpoints" / "step-00000006" / "optimiser.safetensors").write_bytes(b"")
    said = run(configured(manifest, tmp_path / "run"), manifest)
    assert "step-00000006 is damaged (optimiser.safetensors has 0 bytes" in said[0]
    assert saved(tmp_path / "run", 6) == before


def test_accumulation_changes_the_losses_only_in_the_last_digits(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "one"), manifest)
    for micro_batch in (1, 2, 3):
        out = tmp_path / f"accumulated-{micro_batch}"
        run(configured(manifest, out, micro_batch=micro_batch), manifest)
        assert step_losses(out) == pytest.approx(step_losses(tmp_path / "one"), rel=1e-5)


def test_threads_prefetch_and_cadence_do_not_change_a_bit(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "a"), manifest)
    run(configured(manifest, tmp_path / "b", threads=7, prefetch=5, log_every=5, save_every=1), manifest)
    assert saved(tmp_path / "a", 6) == saved(tmp_path / "b", 6)


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
    assert saved(tmp_path / "run", 6) == saved(tmp_path / "whole", 6)
    assert step_losses(tmp_path / "run") == step_losses(tmp_path / "whole")


def spoil(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the loss of these steps (counted from 1) not a number."""
    calls = 0
    add_noise = Diffusion.add_noise

    def spoiled(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return add_noise(*arguments) * (float("nan") if calls in steps else 1.0)

    monkeypatch.setattr(Diffusion, "add_noise", spoiled)


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {2, 4})
    said = run(configured(manifest, tmp_path / "run", save_every=1), manifest)
    for skipped in (2, 4):
        assert tensors(tmp_path / "run", skipped - 1) == tensors(tmp_path / "run", skipped)
    assert tensors(tmp_path / "run", 3) != tensors(tmp_path / "run", 2)
    assert "SKIPPED 2" in said[-1]
    assert list(read_metrics(tmp_path / "run"))[-1]["skipped"] == 2


def test_too_many_skipped_steps_in_a_row_stop_the_run(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {2, 3, 4})
    with pytest.raises(GuardError, match="3 steps in a row up to step 4") as stopped:
        run(configured(manifest, tmp_path / "run"), manifest)
    assert stopped.value.exit_code == ExitCode.STOPPED


def test_gpu_memory_that_runs_out_is_told_in_one_line_wherever_it_does(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    for number, place in enumerate(
        ("training.diffusion.objective.Diffusion.add_noise", "training.optimiser.Optimiser.step")
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, full)
            with pytest.raises(UserError, match=r"4 samples at a time\. Lower --micro-batch") as caught:
                run(configured(manifest, tmp_path / str(number)), manifest)
        assert "\n" not in str(caught.value)


def test_a_machine_that_does_not_share_the_run_directory_is_told_so(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "not here" / "step-00000003"
    monkeypatch.setattr("training.distributed.world.World.on_first", lambda *_: elsewhere)
    with pytest.raises(UserError, match="that all machines share"):
        run(configured(manifest, tmp_path / "run"), manifest)


def test_a_changed_recipe_is_refused_with_the_difference(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    recipe = dataclasses.replace(config.recipe, seed=1, optimiser=dataclasses.replace(LEARN, lr=2e-3))
    with pytest.raises(UserError, match=r"seed was 0, now 1; optimiser\.lr was 0\.001, now 0\.002"):
        run(dataclasses.replace(config, recipe=recipe, steps=9), manifest)


def test_ranks_that_see_other_data_are_refused(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(manifest, tmp_path / "run")
    other = dataclasses.replace(config.recipe, manifest_digest="other")
    monkeypatch.setattr("training.distributed.world.World.from_first", lambda _, value: other if value else value)
    with pytest.raises(UserError, match="rank 0 sees other data"):
        run(config, manifest)


def test_the_directory_of_a_data_set_or_a_model_is_refused_and_left_alone(manifest: Manifest, tmp_path: Path) -> None:
    for name, content in (("dataset.json", "{}"), ("config.json", '{"model_type": "t5"}'), ("config.json", "[")):
        out = tmp_path / f"other-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(UserError, match="Choose another --out"):
            run(configured(manifest, out), manifest)
        assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, content)]


def test_a_start_that_never_made_a_step_does_not_bind_the_next(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run", steps=1)
    impossible = dataclasses.replace(config.recipe, model=dataclasses.replace(MODEL, in_channels=3))
    with pytest.raises(RuntimeError):
        run(dataclasses.replace(config, recipe=impossible), manifest)
    assert (tmp_path / "run" / "config.json").exists()
    run(config, manifest)


def test_a_finished_run_says_that_there_is_nothing_to_do(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    before = (tmp_path / "run" / "weights" / "ema.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "run" / "weights")
    said = run(config, manifest)
    assert len(said) == 1
    assert "nothing to do" in said[0]
    assert (tmp_path / "run" / "weights" / "ema.safetensors").read_bytes() == before


def test_training_starts_from_given_weights(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "first"), manifest)
    weights = tmp_path / "first" / "weights" / "ema.safetensors"
    still = dataclasses.replace(LEARN, lr=1e-30)
    config = configured(manifest, tmp_path / "second", steps=1, init_from=str(weights))
    run(dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, optimiser=still)), manifest)
    start = load_weights(weights)[1]
    for name, tensor in load_weights(tmp_path / "second" / "weights" / "raw.safetensors")[1].items():
        assert torch.equal(tensor, start[name])


def test_weights_of_another_shape_are_refused_with_the_tensors_named(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "first"), manifest)
    weights = str(tmp_path / "first" / "weights" / "ema.safetensors")
    config = configured(manifest, tmp_path / "second", init_from=weights)
    deeper = dataclasses.replace(config.recipe, model=dataclasses.replace(MODEL, depth=3))
    with pytest.raises(UserError, match=r"tensors do not fit the model \(blocks\.2\."):
        run(dataclasses.replace(config, recipe=deeper), manifest)


def test_bf16_autocast_trains_on_a_cpu_too(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run", steps=2)
    run(dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, precision="bf16")), manifest)
    assert all(loss > 0 for loss in step_losses(tmp_path / "run"))


OBJECTIVES = {
    "epsilon": ObjectiveConfig(),
    "epsilon-min-snr": ObjectiveConfig(min_snr_gamma=5.0),
    "v": ObjectiveConfig("v", zero_terminal_snr=True),
    "v-min-snr": ObjectiveConfig("v", min_snr_gamma=5.0),
    "flow": ObjectiveConfig("flow", time_density="logit-normal", time_shift=2.0),
}


def aimed(config: RunConfig, objective: ObjectiveConfig) -> RunConfig:
    model = dataclasses.replace(config.recipe.model, learn_sigma=objective.prediction != "flow")
    return dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, objective=objective, model=model))


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_objective_trains_goes_on_bitwise_after_a_loss_and_is_sampled(
    manifest: Manifest, tmp_path: Path, objective: ObjectiveConfig
) -> None:
    config = aimed(configured(manifest, tmp_path / "run", micro_batch=3), objective)
    run(config, manifest)
    weights, metrics = saved(tmp_path / "run", 6), records(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")  # step 3 is in the middle of a record
    run(config, manifest)
    assert saved(tmp_path / "run", 6) == weights
    assert records(tmp_path / "run") == metrics
    assert all(loss > 0 for loss in step_losses(tmp_path / "run"))

    model, metadata = load_model(tmp_path / "run" / "weights" / "ema.safetensors", torch.device("cpu"))
    assert from_metadata(metadata, "weights") == objective
    text, lengths = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 2])
    found = sample(model, text, lengths, text[0], 1, height=8, width=8, seeds=[0, 1], steps=3, objective=objective)
    assert found.shape == (2, 4, 8, 8)
    assert found.isfinite().all()


def test_objectives_train_differently_and_are_not_exchanged_within_a_run(manifest: Manifest, tmp_path: Path) -> None:
    for name, objective in OBJECTIVES.items():
        run(aimed(configured(manifest, tmp_path / name, steps=2), objective), manifest)
    assert len({tuple(step_losses(tmp_path / name)) for name in OBJECTIVES}) == len(OBJECTIVES)
    with pytest.raises(UserError, match=r"objective\.prediction was epsilon, now v; objective\.zero_terminal_snr"):
        run(aimed(configured(manifest, tmp_path / "epsilon"), OBJECTIVES["v"]), manifest)


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
    assert saved(tmp_path / "run", 6) == saved(tmp_path / "whole", 6)


def test_the_loss_by_timestep_is_that_of_the_whole_and_no_step_counts_twice(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run", log_every=6), manifest)
    (record,) = read_metrics(tmp_path / "run")
    found = record["loss_by_timestep"]
    assert list(found) == ["0-100", "100-250", "250-500", "500-750", "750+"]
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000003" / "state.json").read_text())
    assert sum(count for _, count in state["bins"]) == 3 * 4
    assert state["flops"] > 0
    assert sum(total for total, _ in state["bins"]) == pytest.approx(4 * sum(row[1] for row in state["rows"]), rel=1e-6)
