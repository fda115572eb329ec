import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawing_models import write_kl
from PIL import Image
from safetensors.torch import save_file
from small_runs import MODEL, configured, run
from torch import nn
from training_runs import saved, step_losses

from schemas.errors import CorruptSampleError, UserError
from training.config import EmaConfig, RunConfig
from training.data.held_out import held_out_draws, without_held_out
from training.data.manifest import Manifest, open_manifest
from training.data.plan import Plan
from training.data.policy import Policy
from training.distributed.world import World
from training.ema import Averages
from training.network import network_of
from training.watching.lent import lent
from training.watching.metrics import Window
from training.watching.validation import Validation

CPU = torch.device("cpu")


@pytest.fixture
def manifest(write_features: Callable[..., Any]) -> Manifest:
    made = write_features(buckets={(64, 64): 40, (32, 96): 20})
    return open_manifest(str(made.latents), str(made.text))


def watched(manifest: Manifest, out: Path, **changes: Any) -> RunConfig:
    config = configured(manifest, out, **changes)
    recipe = replace(config.recipe, held_out=0.3)
    return replace(config, recipe=recipe, validate_every=2, validate_samples=10)


def records(run: Path) -> list[dict[str, Any]]:
    lines = (run / "validation.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def test_held_out_samples_are_never_trained_on_and_all_others_are(manifest: Manifest) -> None:
    plan = Plan(without_held_out(manifest.population(), 0.3), 0, Policy(4, shuffle_window=32))
    used = {int(row) for step in range(60) for row in plan.batch(step).rows}
    kept = set(np.flatnonzero(held_out_draws(manifest.sample) >= 0.3).tolist())
    assert used == kept
    assert 0 < len(kept) < 60
    assert without_held_out(manifest.population(), 0.0).digest == manifest.digest
    assert without_held_out(manifest.population(), 0.3).digest != manifest.digest


def test_a_larger_share_holds_out_the_same_and_more(manifest: Manifest) -> None:
    draws = held_out_draws(manifest.sample)
    assert set(np.flatnonzero(draws < 0.1)) < set(np.flatnonzero(draws < 0.5))
    with pytest.raises(UserError, match="leaves nothing to train on"):
        without_held_out(manifest.population(), float(draws.max()) + 1e-9)


def test_the_held_out_loss_is_told_kept_and_shown(manifest: Manifest, tmp_path: Path) -> None:
    said = run(watched(manifest, tmp_path / "run", steps=5), manifest)
    assert sum(line.startswith("held out at step ") for line in said) == 3
    found = records(tmp_path / "run")
    assert [record["step"] for record in found] == [2, 4, 5]
    assert [record["images"] for record in found] == [8, 16, 20]
    for kind in ("raw", "ema"):
        assert found[0][kind]["samples"] == 10
        assert [at["timestep"] for at in found[0][kind]["by_timestep"]] == [62, 187, 312, 437, 562, 687, 812, 937]
    assert found[-1]["raw"]["loss"] != found[-1]["ema"]["loss"]
    assert found[-1]["raw"]["loss"] < found[0]["raw"]["loss"]


def test_looking_changes_nothing_that_is_trained(manifest: Manifest, tmp_path: Path) -> None:
    run(watched(manifest, tmp_path / "looked"), manifest)
    blind = replace(watched(manifest, tmp_path / "blind"), validate_every=0)
    run(blind, manifest)
    assert saved(tmp_path / "looked", 6) == saved(tmp_path / "blind", 6)
    assert step_losses(tmp_path / "looked") == step_losses(tmp_path / "blind")
    run(replace(watched(manifest, tmp_path / "parts"), steps=3), manifest)
    run(watched(manifest, tmp_path / "parts"), manifest)
    assert [r for r in records(tmp_path / "parts") if r["step"] != 3] == records(tmp_path / "looked")


def test_the_steps_before_a_look_are_done_before_its_time_begins(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU they would else be done within it, and training would seem faster than it is."""
    waiting: list[int] = []
    paused = Window.paused

    def pausing(self: Window) -> Any:
        waiting.append(len(self._pending))
        return paused(self)

    monkeypatch.setattr(Window, "paused", pausing)
    run(watched(manifest, tmp_path / "run", log_every=5), manifest)
    assert waiting == [0, 0, 0]


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_ranks_do_equally_much_and_together_the_same_bits_as_one(
    manifest: Manifest, tmp_path: Path, size: int
) -> None:
    recipe = watched(manifest, tmp_path).recipe
    model = trained(network_of(MODEL).build())
    shares = [
        Validation(recipe, manifest, World(rank, size, CPU, None), 10, 3).share(model, None) for rank in range(size)
    ]
    alone = Validation(recipe, manifest, World(0, 1, CPU, None), 10, 3).share(model, None)
    together = {number: losses for share in shares for number, losses in share.items()}
    assert sorted(together) == sorted(alone)
    assert all(np.array_equal(together[number], alone[number]) for number in alone)
    assert {len(share) for share in shares} == {-(-len(alone) // size)}


def trained(model: nn.Module) -> nn.Module:
    """The model with an output that is not zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_a_lent_model_comes_back_bit_for_bit_and_in_training_mode_also_after_an_error() -> None:
    model = trained(network_of(MODEL).build()).train()
    averages = Averages(model, EmaConfig(decay=0.5, warmup=False))
    live = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    averages.update(0, 0, 4, torch.tensor(True))
    changed = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    averaged = {name: tensor.clone() for name, tensor in averages.ema.state_dict().items()}

    def look() -> None:
        with lent(model, averages.ema):
            assert not model.training
            assert all(torch.equal(tensor, averaged[name]) for name, tensor in model.state_dict().items())
            raise CorruptSampleError("something")

    with pytest.raises(CorruptSampleError):
        look()
    assert model.training
    assert all(torch.equal(tensor, changed[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in averages.ema.state_dict().items())
    assert not torch.equal(averaged["x_embedder.proj.weight"], live["x_embedder.proj.weight"])


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    tensors = {"text": torch.randn(3, 5, 32).half(), "lengths": torch.tensor([5, 1, 3])}
    save_file(tensors, tmp_path / "prompts.safetensors", {"prompts": json.dumps(["a", "b", "c"])})
    return str(tmp_path / "prompts.safetensors")


def test_pictures_of_fixed_prompts_are_drawn_now_and_then(manifest: Manifest, tmp_path: Path, prompts: str) -> None:
    vae = str(write_kl(tmp_path / "vae"))
    config = configured(manifest, tmp_path / "run", steps=5, grid_every=2, grid_prompts=prompts, grid_vae=vae)
    run(config, manifest)
    names = [path.name for path in sorted((tmp_path / "run" / "grids").iterdir())]
    assert names == ["step-00000002.png", "step-00000004.png", "step-00000005.png"]
    first, last = (np.asarray(Image.open(tmp_path / "run" / "grids" / name)) for name in (names[0], names[-1]))
    assert first.shape == (32, 32, 3)  # 2 x 2 of 16 px, of which three are pictures
    assert not np.array_equal(first, last)
    assert not first[16:, 16:].any()
    blind = configured(manifest, tmp_path / "blind", steps=5)
    run(blind, manifest)
    assert saved(tmp_path / "run", 5) == saved(tmp_path / "blind", 5)


def test_prompts_and_vaes_that_do_not_fit_are_refused_before_training(
    manifest: Manifest, tmp_path: Path, prompts: str
) -> None:
    save_file({"text": torch.zeros(1, 2, 8)}, tmp_path / "bare.safetensors")
    tensors = {"text": torch.randn(3, 5, 24), "lengths": torch.tensor([5, 1, 3])}
    save_file(tensors, tmp_path / "narrow.safetensors", {"prompts": json.dumps(["a", "b", "c"])})
    vae, wide = str(write_kl(tmp_path / "vae")), str(write_kl(tmp_path / "wide", channels=8))
    for given, decoder, said in (
        (prompts, wide, "8 latent channels, the data has 4"),
        (str(tmp_path / "bare.safetensors"), vae, "no prompts there"),
        (str(tmp_path / "narrow.safetensors"), vae, "24 wide, the data's is 32"),
        ("/nowhere", vae, "no prompts there"),
    ):
        config = configured(manifest, tmp_path / "run", grid_every=2, grid_prompts=given, grid_vae=decoder)
        with pytest.raises(UserError, match=said):
            run(config, manifest)
    for changes, said in (
        ({"grid_every": 2}, "--grid-every needs --grid-vae and --grid-prompts"),
        ({"validate_every": 2}, "Hold some out"),
        ({"profile": (5, 5)}, "--profile 5:5"),
        ({"validate_samples": 0}, "--validate-samples 0"),
    ):
        with pytest.raises(UserError, match=said):
            configured(manifest, tmp_path / "run", **changes)


def test_the_steps_of_the_window_are_traced_and_no_others(manifest: Manifest, tmp_path: Path) -> None:
    run(configured(manifest, tmp_path / "run", profile=(2, 4)), manifest)
    (trace,) = (tmp_path / "run" / "profile").iterdir()
    assert trace.name == "steps-2-4-rank-0.json.gz"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = [event for event in events if event.get("name", "").startswith("Optimizer.step")]
    assert len(steps) == 2
    run(configured(manifest, tmp_path / "to-the-end", profile=(5, 90)), manifest)
    assert (tmp_path / "to-the-end" / "profile" / "steps-5-90-rank-0.json.gz").is_file()
