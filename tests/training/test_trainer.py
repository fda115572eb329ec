import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import LEARN, MODEL, configured, run
from training_runs import saved, saved_files, step_losses

from schemas.errors import ExitCode, GuardError, UserError
from training.config import RunConfig
from training.data.manifest import Manifest
from training.diffusion.config import ObjectiveConfig, from_metadata, to_metadata
from training.diffusion.objective import Diffusion
from training.sampling.guidance import sample
from training.trainer import train
from training.watching.metrics import read_metrics
from training.weights.files import load_model, load_weights


def records(run: Path) -> list[dict[str, Any]]:
    """What was measured, without what the clock and the memory say."""
    timed = ("seconds", "data_wait", "peak_memory")
    return [{name: value for name, value in record.items() if name not in timed} for record in read_metrics(run)]


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


def test_accumulation_changes_the_losses_only_in_the_last_digits(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "one"), manifest)
    for micro_batch in (1, 2, 3):
        out = tmp_path / f"accumulated-{micro_batch}"
        run(configured(manifest, out, micro_batch=micro_batch), manifest)
        assert step_losses(out) == pytest.approx(step_losses(tmp_path / "one"), rel=1e-5)


def test_threads_prefetch_and_cadence_do_not_change_a_bit(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "a"), manifest)
    run(configured(manifest, tmp_path / "b", threads=7, prefetch=5, log_every=5, save_every=1), manifest)
    assert saved_files(tmp_path / "a", 6) == saved_files(tmp_path / "b", 6)


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
        assert saved(tmp_path / "run", skipped - 1) == saved(tmp_path / "run", skipped)
    assert saved(tmp_path / "run", 3) != saved(tmp_path / "run", 2)
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
    weights, metrics = saved_files(tmp_path / "run", 6), records(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")  # step 3 is in the middle of a record
    run(config, manifest)
    assert saved_files(tmp_path / "run", 6) == weights
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


def test_the_loss_by_timestep_is_that_of_the_whole_and_no_step_counts_twice(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run", log_every=6), manifest)
    (record,) = read_metrics(tmp_path / "run")
    found = record["loss_by_timestep"]
    assert list(found) == ["0-100", "100-250", "250-500", "500-750", "750+"]
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000003" / "state.json").read_text())
    assert sum(count for _, count in state["bins"]) == 3 * 4
    assert state["flops"] > 0
    assert sum(total for total, _ in state["bins"]) == pytest.approx(4 * sum(row[1] for row in state["rows"]), rel=1e-6)
