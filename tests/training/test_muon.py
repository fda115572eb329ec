import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import LEARN, MODEL, configured, run
from torch import Tensor, nn
from training_runs import saved_files, step_losses

from curation.demo.muon import Muon as RecipesMuon
from schemas.errors import UserError
from training.config import OptimiserConfig, RunConfig
from training.data.manifest import Manifest
from training.models.config import DitConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.muon import Muon, is_muons, orthogonal
from training.optimiser import Optimiser

CONFIG = OptimiserConfig(lr=1e-2, warmup_steps=0, clip=1.0, muon_lr=2e-2)
FINITE = torch.tensor(True)


def matrices() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    shapes = {"a": (6, 4), "b": (6, 4), "c": (3, 5), **{f"d{i}": (2, 2) for i in range(9)}}
    return {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}


def give_gradients(parameters: dict[str, nn.Parameter], seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale


def values(parameters: dict[str, nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters.values()]


def with_muon(config: RunConfig) -> RunConfig:
    learn = dataclasses.replace(LEARN, muon_lr=1e-2)
    return dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, optimiser=learn))


def test_singular_values_come_near_one_and_directions_stay() -> None:
    torch.manual_seed(0)
    given = torch.randn(3, 8, 5)
    found = orthogonal(given)
    sizes = torch.linalg.svdvals(found)
    assert 0.6 < sizes.min() < sizes.max() < 1.3
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    assert (left.mT @ found @ right.mT).diagonal(dim1=-2, dim2=-1).min() > 0.6
    torch.testing.assert_close(orthogonal(given.mT), found.mT)


def test_steps_are_those_of_the_recipes_of_the_small_models() -> None:
    ours, theirs = matrices(), matrices()
    muon, other = Muon(ours, 0.1), RecipesMuon(theirs.values(), 0.03, weight_decay=0.1)
    for step in range(3):
        for parameters in (ours, theirs):
            give_gradients(parameters, step)
        muon.step(0.03, FINITE)
        other.step()
    torch.testing.assert_close(values(ours), values(theirs))


def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_momentum() -> None:
    parameters = matrices()
    muon = Muon(parameters, 0.1)
    give_gradients(parameters, 0)
    muon.step(0.03, FINITE)
    before, means = values(parameters), [mean.clone() for mean in muon.state_dict().values()]
    give_gradients(parameters, 1, float("nan"))
    muon.step(0.03, torch.tensor(False))
    assert all(map(torch.equal, values(parameters), before))
    assert all(map(torch.equal, muon.state_dict().values(), means))


def test_it_takes_the_matrices_of_attention_and_perceptrons_in_the_blocks_and_nothing_else() -> None:
    taken = [name for name, parameter in PixArt(MODEL).named_parameters() if is_muons(name, parameter)]
    of_a_block = ["attn.qkv", "attn.proj", "cross_attn.q_linear", "cross_attn.kv_linear", "cross_attn.proj"]
    of_a_block += ["mlp.fc1", "mlp.fc2"]
    assert taken == [f"blocks.{block}.{name}.weight" for block in range(2) for name in of_a_block]
    small = DiT(DitConfig(depth=1, hidden=32, heads=2, classes=3))
    assert [name.split(".", 2)[2] for name, p in small.named_parameters() if is_muons(name, p)] == [
        f"{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    ]


def test_both_optimisers_move_what_is_theirs_and_the_others_moments_are_not_kept() -> None:
    model = PixArt(MODEL)
    parameters, optimiser = dict(model.named_parameters()), Optimiser(model, CONFIG)
    assert optimiser.state_dict() == {}
    before = values(parameters)
    give_gradients(parameters, 0)
    optimiser.step(0)
    assert not any(map(torch.equal, values(parameters), before))
    kept = [full.split(".", 1) for full in optimiser.state_dict()]
    assert {moment for moment, name in kept if name == "blocks.0.mlp.fc1.weight"} == {"momentum"}
    assert {moment for moment, name in kept if name == "blocks.0.mlp.fc1.bias"} == {"exp_avg", "exp_avg_sq", "step"}


def test_a_run_goes_on_bitwise_after_a_loss_and_differs_from_one_by_adamw(manifest: Manifest, tmp_path: Path) -> None:
    config = with_muon(configured(manifest, tmp_path / "run"))
    run(config, manifest)
    weights = saved_files(tmp_path / "run", 6)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000006")
    run(config, manifest)
    assert saved_files(tmp_path / "run", 6) == weights
    run(configured(manifest, tmp_path / "plain"), manifest)
    assert step_losses(tmp_path / "plain") != step_losses(tmp_path / "run")
    with pytest.raises(UserError, match=r"optimiser\.muon_lr was 0\.0, now 0\.01"):
        run(with_muon(configured(manifest, tmp_path / "plain", steps=8)), manifest)


def test_sharded_weights_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--muon-lr needs whole matrices"):
        run(with_muon(configured(manifest, tmp_path / "run", shard=True)), manifest)
