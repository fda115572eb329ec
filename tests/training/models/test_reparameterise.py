import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from schemas.errors import UserError
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.models.reading import SHARED, WITHOUT_CLASS, Reading
from training.models.reparameterise import distances, pixart_config, reparameterise

DIT = DitConfig(depth=3, hidden=48, heads=4, classes=5, position_base=4)
PIXART = pixart_config(DIT, caption_channels=20, text_tokens=7)
READINGS = [Reading(shared, without) for shared in SHARED for without in WITHOUT_CLASS]


@pytest.fixture
def dit(build_dit: Callable[[DitConfig], DiT]) -> DiT:
    return build_dit(DIT)


def load(state: dict[str, Tensor], config: PixArtConfig = PIXART) -> PixArt:
    model = PixArt(config).to(next(iter(state.values())).dtype)
    model.load_state_dict(state, strict=True)
    return model


def without_class(dit: DiT, latents: Tensor, timesteps: Tensor, reading: str) -> Tensor:
    """What the DiT predicts, by its own forward: with the null class, or with an embedding of zero in its place."""
    if reading == "zero":
        with torch.no_grad():
            dit.y_embedder.embedding_table.weight[DIT.classes] = 0
    return dit(latents, timesteps, torch.full_like(timesteps, DIT.classes))


@pytest.mark.parametrize("timestep", [500, 0, 999])
@pytest.mark.parametrize("reading", READINGS, ids=str)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
def test_at_the_chosen_timestep_the_pixart_predicts_what_the_dit_does_without_a_class(
    dit: DiT, reading: Reading, timestep: int, dtype: torch.dtype, bound: float
) -> None:
    reading = dataclasses.replace(reading, timestep=timestep)
    dit.to(dtype)
    pixart = load(reparameterise(dit.state_dict(), DIT, PIXART, reading))
    latents, text = torch.randn(3, 4, 8, 12, dtype=dtype), torch.randn(3, 7, 20, dtype=dtype)
    timesteps = torch.full((3,), timestep)
    found = pixart(latents, timesteps, text, torch.tensor([1, 4, 7]))
    wanted = without_class(dit, latents, timesteps, reading.without_class)
    assert ((found - wanted).norm() / wanted.norm()).item() < bound


def test_the_two_meanings_of_without_class_differ(dit: DiT) -> None:
    states = [reparameterise(dit.state_dict(), DIT, PIXART, Reading(without_class=w)) for w in WITHOUT_CLASS]
    assert not torch.allclose(states[0]["blocks.1.scale_shift_table"], states[1]["blocks.1.scale_shift_table"])


def test_with_the_first_block_shared_its_modulation_is_exact_at_every_timestep(dit: DiT) -> None:
    state = reparameterise(dit.state_dict(), DIT, PIXART, Reading("first-block", "zero"))
    assert not state["blocks.0.scale_shift_table"].any()
    found = distances(dit.state_dict(), DIT, state, PIXART, range(0, 1000, 37), torch.randn(1, 4, 8, 8))
    assert all(distance.blocks[0] < 1e-14 for distance in found)
    assert all(min(d.blocks[1:]) > 1e-3 for d in found if abs(d.timestep - 500) > 100)


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_the_distance_is_nothing_at_the_chosen_timestep_and_something_elsewhere(dit: DiT, reading: Reading) -> None:
    state = reparameterise(dit.state_dict(), DIT, PIXART, reading)
    at, near, far = distances(
        dit.state_dict(), DIT, state, PIXART, [500, 510, 0], torch.randn(2, 4, 8, 8), reading.without_class
    )
    assert max(*at.blocks, at.final) < 1e-6  # the tables are float32
    assert at.output < 2e-6
    assert 1e-3 < near.output < far.output
    assert max(at.blocks) < max(near.blocks) < max(far.blocks)
    assert at.final < near.final < far.final


def test_a_dit_that_was_never_trained_has_distances_too() -> None:
    state = DiT(DIT).state_dict()
    found = distances(state, DIT, reparameterise(state, DIT, PIXART, Reading()), PIXART, [500], torch.randn(1, 4, 8, 8))
    assert found[0].blocks == (0.0, 0.0, 0.0)
    assert found[0].output == 0.0


@pytest.mark.parametrize("reading", WITHOUT_CLASS)
def test_the_baseline_of_the_ablation_is_exact_at_every_timestep(dit: DiT, reading: str) -> None:
    config = dataclasses.replace(PIXART, modulation="per-block")
    dit.double()
    pixart = load(reparameterise(dit.state_dict(), DIT, config, Reading(without_class=reading)), config)
    latents, timesteps = torch.randn(3, 4, 8, 8, dtype=torch.float64), torch.tensor([0, 123, 999])
    found = pixart(latents, timesteps, torch.randn(3, 7, 20, dtype=torch.float64), torch.tensor([1, 4, 7]))
    wanted = without_class(dit, latents, timesteps, reading)
    assert ((found - wanted).norm() / wanted.norm()).item() < 1e-13


def test_same_seed_same_weights_and_what_the_dit_has_is_taken_over_unchanged(dit: DiT) -> None:
    state = dit.state_dict()
    first, again, other = (reparameterise(state, DIT, PIXART, Reading("fresh"), seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    differing = {name for name in first if not torch.equal(first[name], other[name])}
    assert "t_block.1.weight" in differing
    shared = set(first) & set(state)
    assert len(shared) == 2 + 4 + 2 + 3 * 8
    assert not shared & differing
    assert all(torch.equal(first[name], state[name]) for name in shared)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 2}, "differ in depth"),
        ({"learn_sigma": False}, "differ in learn_sigma"),
        ({"micro_conditions": True}, "neither micro-conditions"),
        ({"qk_norm": True}, "QK-norm"),
    ],
)
def test_a_pixart_that_cannot_equal_the_dit_is_refused(dit: DiT, change: dict[str, object], words: str) -> None:
    config = dataclasses.replace(PIXART, **change)
    with pytest.raises(UserError, match=words) as caught:
        reparameterise(dit.state_dict(), DIT, config, Reading())
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_the_dits_are_named(dit: DiT) -> None:
    state = dit.state_dict()
    state["blocks.0.cross_attn.proj.bias"] = state.pop("blocks.0.attn.proj.bias")
    with pytest.raises(UserError, match=r"2 tensors .*blocks\.0\.attn\.proj\.bias, blocks\.0\.cross_attn"):
        reparameterise(state, DIT, PIXART, Reading())


@pytest.mark.parametrize("wrong", [{"shared": "last"}, {"without_class": "one"}, {"timestep": 1000}])
def test_a_reading_that_is_none_is_told(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError):
        Reading(**wrong)
