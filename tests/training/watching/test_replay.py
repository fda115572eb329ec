import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import configured, run
from training_runs import records, step_losses

from pipelines.train import main
from schemas.errors import ExitCode, UserError
from training.checkpoints.folder import file_digest
from training.config import RunConfig
from training.data.manifest import Manifest, open_manifest
from training.diffusion.objective import Diffusion
from training.distributed.world import World
from training.watching.replay import Replay, lines, replay

ALONE = World(0, 1, torch.device("cpu"), None)


def replayed(config: RunConfig, manifest: Manifest, step: int, **options: bool) -> Replay:
    return replay(config, manifest, ALONE, step, lambda _: None, **options)


def everything(run: Path) -> dict[str, str]:
    return {str(path): file_digest(path) for path in sorted(run.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_step_is_done_again_exactly_from_the_checkpoint_before_it(
    manifest: Manifest, tmp_path: Path, step: int
) -> None:
    config = configured(manifest, tmp_path / "run", log_every=1)
    run(config, manifest)
    before = everything(tmp_path / "run")
    found = replayed(config, manifest, step)
    assert found.exact
    record = records(tmp_path / "run")[step - 1]
    assert found.loss == pytest.approx(step_losses(tmp_path / "run")[step - 1], rel=1e-6)
    assert found.gradient_norm == pytest.approx(record["grad_norm"], rel=1e-5)
    assert sum(sample.loss for sample in found.samples) / 4 == pytest.approx(found.loss, rel=1e-6)
    assert ("done again" in found.weights) == (step in (3, 6))
    assert everything(tmp_path / "run") == before


def test_weights_as_they_were_saved_are_said_to_be_older(manifest: Manifest, tmp_path: Path) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    older, exact = replayed(config, manifest, 6, redo=False), replayed(config, manifest, 6)
    assert not older.exact
    assert "of checkpoint step-00000003: 2 steps older" in older.weights
    assert [s.name for s in older.samples] == [s.name for s in exact.samples]
    assert [s.timestep for s in older.samples] == [s.timestep for s in exact.samples]
    assert older.loss != exact.loss
    assert "(not the same step)" in lines(older, 3)[0]


def spoil(monkeypatch: pytest.MonkeyPatch, timestep: float, after: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the model's input for one timestep, which one sample of one step has, be what `after` makes of it."""
    add_noise = Diffusion.add_noise

    def spoiled(self: Diffusion, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        noised = add_noise(self, latents, noise, times)
        return torch.where((times == timestep)[:, None, None, None], after(noised), noised)

    monkeypatch.setattr(Diffusion, "add_noise", spoiled)


@pytest.mark.parametrize("micro_batch", [4, 2])
def test_the_sample_that_spoilt_a_step_is_found_from_what_the_log_says(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch: int
) -> None:
    config = configured(manifest, tmp_path / "run", micro_batch=micro_batch)
    run(configured(manifest, tmp_path / "undisturbed"), manifest)
    culprit = replayed(configured(manifest, tmp_path / "undisturbed"), manifest, 5).samples[2]
    spoil(monkeypatch, culprit.timestep, lambda noised: noised * math.nan)
    said = run(config, manifest)
    (hint,) = [line for line in said if "skipped, its gradient is not finite" in line]
    assert hint.startswith("step 5 skipped")
    assert hint.endswith(f"python -m pipelines.train replay --out {config.out} --step 5")
    assert [record["skipped_steps"] for record in records(tmp_path / "run")] == [[], [], [5]]
    found = replayed(config, manifest, 5)
    assert not math.isfinite(found.gradient_norm)
    (odd,) = found.odd
    assert (odd.name, odd.visit, odd.timestep) == (culprit.name, culprit.visit, culprit.timestep)
    looked_at = [sample for sample in found.samples if sample.gradient_norm is not None]
    assert len(looked_at) == micro_batch
    assert "NOT FINITE" in lines(found, 3)[3]


def test_a_gradient_that_overflows_under_a_finite_loss_is_found_too(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    culprit = replayed(config, manifest, 4).samples[1]
    with monkeypatch.context() as patched:
        patched.setattr("training.watching.replay._norm", lambda grads: math.inf)
        found = replayed(config, manifest, 4)
    assert {sample.name for sample in found.odd} == {sample.name for sample in found.samples}
    assert math.isfinite(culprit.loss)
    each = replayed(config, manifest, 4, each=True)
    assert all(sample.gradient_norm for sample in each.samples)
    assert not each.odd


def test_a_step_before_the_first_or_of_other_data_is_refused(
    manifest: Manifest, tmp_path: Path, write_features: Callable[..., Any]
) -> None:
    config = configured(manifest, tmp_path / "run")
    run(config, manifest)
    with pytest.raises(UserError, match="steps count from 1"):
        replayed(config, manifest, 0)
    with pytest.raises(UserError, match=rf"--step {config.steps + 1}: .*run has {config.steps} steps"):
        replayed(config, manifest, config.steps + 1)
    made = write_features(folder="other", seed=4)
    with pytest.raises(UserError, match="its data is not what it was"):
        replayed(config, open_manifest(str(made.latents), str(made.text)), 2)


def test_the_command_finds_the_run_by_itself_and_writes_what_it_found(
    write_features: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, out = write_features(), str(tmp_path / "run")
    small = ["--model", "tiny/2", "--steps", "3", "--global-batch", "4", "--device", "cpu", "--save-every", "2"]
    places = ["--latents", str(made.latents), "--text", str(made.text), "--manifest-cache", str(tmp_path / "cache")]
    assert main([*places, *small, "--out", out]) == ExitCode.OK
    assert main(["replay", "--out", out, "--step", "2", "--device", "cpu", "--each"]) == ExitCode.OK
    said = capsys.readouterr()
    assert "doing steps 1 to 1 again, from the weights that the run began with" in said.err
    assert "4 samples, loss " in said.out
    written = json.loads((tmp_path / "run" / "replay" / "step-00000002.json").read_text())
    assert (written["step"], written["exact"], len(written["samples"])) == (2, True, 4)
    assert main(["replay", "--out", str(tmp_path), "--step", "2"]) == ExitCode.BAD_INPUT
    assert "no training run there" in capsys.readouterr().err


def test_a_run_whose_attention_is_for_cuda_is_replayed_on_a_cpu(
    write_features: Callable[..., Any], tmp_path: Path
) -> None:
    made, out = write_features(), tmp_path / "run"
    small = ["--model", "tiny/2", "--steps", "2", "--global-batch", "4", "--device", "cpu"]
    places = ["--latents", str(made.latents), "--text", str(made.text), "--manifest-cache", str(tmp_path / "cache")]
    assert main([*places, *small, "--out", str(out)]) == ExitCode.OK
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"attention": "varlen"}))
    assert main(["replay", "--out", str(out), "--step", "2", "--device", "cpu"]) == ExitCode.OK
