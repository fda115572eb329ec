import dataclasses
from collections.abc import Callable

import pytest
import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from schemas.errors import UserError
from training.models.config import DIT_SIZES, PIXART_SIZES, DitConfig
from training.models.dit import DiT
from training.models.embeddings import position_embedding

SMALL = DitConfig(depth=2, hidden=48, heads=4, classes=5, position_base=4)

Build = Callable[[DitConfig], DiT]


def test_xl_2_has_exactly_the_parameters_of_the_official_one_with_its_frozen_positions() -> None:
    with torch.device("meta"):
        model = DiT(DIT_SIZES["XL/2"])
        positions = position_embedding(16, 16, 1152, 16, 1.0, torch.device("meta"))
    own = sum(parameter.numel() for parameter in model.parameters())
    assert own == 674_834_720
    assert own + positions.numel() == 675_129_632


def test_the_sizes_are_those_of_pixart() -> None:
    shapes = {name: (c.depth, c.hidden, c.heads, c.patch) for name, c in DIT_SIZES.items()}
    assert shapes == {name: (c.depth, c.hidden, c.heads, c.patch) for name, c in PIXART_SIZES.items()}
    assert DIT_SIZES["XL/2"] == DitConfig()


def test_parameters_are_named_and_shaped_as_in_the_official_checkpoint() -> None:
    with torch.device("meta"):
        model = DiT(dataclasses.replace(DIT_SIZES["XL/2"], depth=1))
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items() if not name.endswith("bias")}
    assert shapes == {
        "x_embedder.proj.weight": (1152, 4, 2, 2),
        "t_embedder.mlp.0.weight": (1152, 256),
        "t_embedder.mlp.2.weight": (1152, 1152),
        "y_embedder.embedding_table.weight": (1001, 1152),
        "blocks.0.attn.qkv.weight": (3456, 1152),
        "blocks.0.attn.proj.weight": (1152, 1152),
        "blocks.0.mlp.fc1.weight": (4608, 1152),
        "blocks.0.mlp.fc2.weight": (1152, 4608),
        "blocks.0.adaLN_modulation.1.weight": (6912, 1152),
        "final_layer.linear.weight": (32, 1152),
        "final_layer.adaLN_modulation.1.weight": (2304, 1152),
    }


def test_at_initialisation_the_output_is_zero_and_the_output_layer_learns() -> None:
    torch.manual_seed(0)
    model = DiT(SMALL)
    out = model(torch.randn(2, 4, 8, 6), torch.tensor([0, 999]), torch.tensor([0, 5]))
    assert out.shape == (2, 8, 8, 6)
    assert not out.any()
    (out - 1).square().sum().backward()
    assert model.final_layer.linear.weight.grad is not None
    assert model.final_layer.linear.weight.grad.any()


def test_time_and_class_change_the_output(build_dit: Build) -> None:
    model = build_dit(SMALL)
    latents, timesteps, labels = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.tensor([1, 5])
    base = model(latents, timesteps, labels)
    assert not torch.allclose(model(latents, timesteps + 1, labels), base, atol=1e-4)
    assert not torch.allclose(model(latents, timesteps, labels - 1), base, atol=1e-4)


def diffusers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights for diffusers' DiT, whose every block keeps the embedders of time and class anew."""
    out = {f"pos_embed.proj.{kind}": state[f"x_embedder.proj.{kind}"] for kind in ("weight", "bias")}
    for kind in ("weight", "bias"):
        out[f"proj_out_1.{kind}"] = state[f"final_layer.adaLN_modulation.1.{kind}"]
        out[f"proj_out_2.{kind}"] = state[f"final_layer.linear.{kind}"]
        for i in range(SMALL.depth):
            ours, theirs = f"blocks.{i}", f"transformer_blocks.{i}"
            time = f"{theirs}.norm1.emb.timestep_embedder.linear"
            out[f"{time}_1.{kind}"] = state[f"t_embedder.mlp.0.{kind}"]
            out[f"{time}_2.{kind}"] = state[f"t_embedder.mlp.2.{kind}"]
            out[f"{theirs}.norm1.linear.{kind}"] = state[f"{ours}.adaLN_modulation.1.{kind}"]
            for name, part in zip("qkv", state[f"{ours}.attn.qkv.{kind}"].chunk(3), strict=True):
                out[f"{theirs}.attn1.to_{name}.{kind}"] = part
            out[f"{theirs}.attn1.to_out.0.{kind}"] = state[f"{ours}.attn.proj.{kind}"]
            out[f"{theirs}.ff.net.0.proj.{kind}"] = state[f"{ours}.mlp.fc1.{kind}"]
            out[f"{theirs}.ff.net.2.{kind}"] = state[f"{ours}.mlp.fc2.{kind}"]
    for i in range(SMALL.depth):
        table = f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"
        out[table] = state["y_embedder.embedding_table.weight"]
    return out


def test_the_output_equals_that_of_diffusers(build_dit: Build) -> None:
    model = build_dit(SMALL)
    theirs = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        norm_eps=1e-6,
        num_embeds_ada_norm=5,
    ).eval()
    for block in theirs.transformer_blocks:  # diffusers' frequencies end at 1 / 10000 here, the official code's do not
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    theirs.load_state_dict(diffusers_names(model.state_dict()), strict=True)
    latents, timesteps, labels = torch.randn(3, 4, 8, 8), torch.tensor([0, 321, 999]), torch.tensor([0, 3, 5])
    for dtype, bound in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        found = model.to(dtype)(latents.to(dtype), timesteps, labels)
        expected = theirs.to(dtype)(latents.to(dtype), timestep=timesteps, class_labels=labels).sample
        assert ((found - expected).norm() / expected.norm()).item() < bound


@pytest.mark.parametrize("change", [{"heads": 5}, {"hidden": 126, "heads": 3}, {"depth": 0}, {"classes": 0}])
def test_a_size_that_cannot_be_is_told_in_one_line(change: dict[str, int]) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(SMALL, **change)
    assert "\n" not in str(caught.value)
