import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.models.config import PIXART_SIZES, PixArtConfig
from training.models.pixart import PixArt

Build = Callable[[PixArtConfig], PixArt]


def batch(config: PixArtConfig, rows: int = 8, columns: int = 6, text_rows: int = 7) -> list[Tensor]:
    """latents, timesteps, text, lengths."""
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(3, config.in_channels, rows, columns, generator=g)
    text = torch.randn(3, text_rows, config.caption_channels, generator=g)
    return [latents, torch.tensor([0, 500, 999]), text, torch.tensor([1, 4, 7])]


@pytest.mark.parametrize(("micro_conditions", "expected"), [(False, 610_856_096), (True, 611_349_152)])
def test_xl_2_has_exactly_the_parameters_of_the_paper(micro_conditions: bool, expected: int) -> None:
    with torch.device("meta"):
        model = PixArt(dataclasses.replace(PIXART_SIZES["XL/2"], micro_conditions=micro_conditions))
    assert sum(p.numel() for p in model.parameters()) == expected


def test_parameters_are_named_and_shaped_as_in_the_official_checkpoints() -> None:
    with torch.device("meta"):
        model = PixArt(dataclasses.replace(PIXART_SIZES["XL/2"], depth=1, micro_conditions=True))
    shapes = {name: tuple(p.shape) for name, p in model.state_dict().items() if not name.endswith("bias")}
    assert shapes == {
        "x_embedder.proj.weight": (1152, 4, 2, 2),
        "t_embedder.mlp.0.weight": (1152, 256),
        "t_embedder.mlp.2.weight": (1152, 1152),
        "csize_embedder.mlp.0.weight": (384, 256),
        "csize_embedder.mlp.2.weight": (384, 384),
        "ar_embedder.mlp.0.weight": (384, 256),
        "ar_embedder.mlp.2.weight": (384, 384),
        "t_block.1.weight": (6912, 1152),
        "y_embedder.y_proj.fc1.weight": (1152, 4096),
        "y_embedder.y_proj.fc2.weight": (1152, 1152),
        "blocks.0.scale_shift_table": (6, 1152),
        "blocks.0.attn.qkv.weight": (3456, 1152),
        "blocks.0.attn.proj.weight": (1152, 1152),
        "blocks.0.cross_attn.q_linear.weight": (1152, 1152),
        "blocks.0.cross_attn.kv_linear.weight": (2304, 1152),
        "blocks.0.cross_attn.proj.weight": (1152, 1152),
        "blocks.0.mlp.fc1.weight": (4608, 1152),
        "blocks.0.mlp.fc2.weight": (1152, 4608),
        "final_layer.linear.weight": (32, 1152),
        "final_layer.scale_shift_table": (2, 1152),
    }


def test_the_output_is_epsilon_and_variance_in_the_shape_of_the_latents(
    small_config: PixArtConfig, build: Build
) -> None:
    assert build(small_config)(*batch(small_config)).shape == (3, 8, 8, 6)
    plain = dataclasses.replace(small_config, learn_sigma=False)
    assert build(plain)(*batch(plain)).shape == (3, 4, 8, 6)


@pytest.mark.parametrize("garbage", [7.0, 1e30, math.inf, math.nan])
def test_what_padding_holds_changes_neither_output_nor_gradients(
    small_config: PixArtConfig, build: Build, garbage: float
) -> None:
    model = build(small_config)
    latents, timesteps, text, lengths = batch(small_config)
    spoilt = text.clone()
    for b, length in enumerate(lengths.tolist()):
        spoilt[b, length:] = garbage
    results = []
    for variant in (text, spoilt):
        model.zero_grad()
        out = model(latents, timesteps, variant, lengths)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_more_padding_does_not_change_the_output(small_config: PixArtConfig, build: Build) -> None:
    model = build(small_config)
    latents, timesteps, text, lengths = batch(small_config)
    longer = torch.cat([text, torch.randn(3, 13, small_config.caption_channels)], dim=1)
    torch.testing.assert_close(
        model(latents, timesteps, longer, lengths), model(latents, timesteps, text, lengths), rtol=1e-5, atol=1e-5
    )


def test_a_sample_does_not_depend_on_the_others_in_its_batch(small_config: PixArtConfig, build: Build) -> None:
    model = build(small_config)
    inputs = batch(small_config)
    together = model(*inputs)
    for b in range(3):
        torch.testing.assert_close(model(*(t[b : b + 1] for t in inputs))[0], together[b], rtol=1e-4, atol=1e-5)


def test_every_condition_changes_the_output(small_config: PixArtConfig, build: Build) -> None:
    config = dataclasses.replace(small_config, micro_conditions=True)
    model = build(config)
    latents, timesteps, text, lengths = batch(config)
    sizes = torch.tensor([[512.0, 384.0, 1.33]] * 3)
    base = model(latents, timesteps, text, lengths, sizes)
    flipped = text.clone()
    flipped[:, 0] *= -1
    others = [
        model(latents, timesteps.flip(0) + 1, text, lengths, sizes),
        model(latents, timesteps, flipped, lengths, sizes),
        model(latents, timesteps, text, lengths, sizes * torch.tensor([2.0, 1.0, 1.0])),
        model(latents, timesteps, text, lengths, sizes * torch.tensor([1.0, 2.0, 1.0])),
        model(latents, timesteps, text, lengths, sizes * torch.tensor([1.0, 1.0, 2.0])),
    ]
    for other in others:
        assert not torch.allclose(other, base, atol=1e-4)


def test_micro_conditions_without_sizes_are_an_error(small_config: PixArtConfig, build: Build) -> None:
    config = dataclasses.replace(small_config, micro_conditions=True)
    with pytest.raises(ValueError, match="sizes"):
        build(config)(*batch(config))


def test_initialisation_is_that_of_the_released_code() -> None:
    torch.manual_seed(0)
    config = PixArtConfig(depth=2, hidden=384, heads=6, caption_channels=512, micro_conditions=True)
    state = PixArt(config).state_dict()
    zero = {n for n, t in state.items() if not t.any()}
    biases = {n for n in state if n.endswith("bias") and n != "x_embedder.proj.bias"}
    outputs = {"final_layer.linear.weight", "blocks.0.cross_attn.proj.weight", "blocks.1.cross_attn.proj.weight"}
    assert zero == biases | outputs
    embedders = ["t_embedder.mlp.0", "t_embedder.mlp.2", "t_block.1", "y_embedder.y_proj.fc1", "y_embedder.y_proj.fc2"]
    embedders += ["csize_embedder.mlp.0", "csize_embedder.mlp.2", "ar_embedder.mlp.0", "ar_embedder.mlp.2"]
    for name in embedders:
        assert state[f"{name}.weight"].std().item() == pytest.approx(0.02, rel=0.05), name
    for name in ("blocks.0.scale_shift_table", "blocks.1.scale_shift_table", "final_layer.scale_shift_table"):
        assert state[name].std().item() == pytest.approx(384**-0.5, rel=0.1), name
    for name in ("blocks.0.attn.qkv", "blocks.1.mlp.fc1", "blocks.0.cross_attn.kv_linear", "x_embedder.proj"):
        weight = state[f"{name}.weight"].flatten(1)
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.95 * bound < weight.abs().max().item() <= bound, name
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name


def test_at_initialisation_the_output_is_zero_and_all_but_the_text_path_learns() -> None:
    torch.manual_seed(0)
    config = PixArtConfig(depth=1, hidden=48, heads=4, caption_channels=20)
    model = PixArt(config)
    out = model(*batch(config))
    assert not out.any()
    (out - 1).square().sum().backward()
    assert model.final_layer.linear.weight.grad is not None
    assert model.final_layer.linear.weight.grad.any()


def test_the_model_compiles_without_a_graph_break(small_config: PixArtConfig, build: Build) -> None:
    model = build(small_config)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for shape in ((8, 6), (4, 4)):
        inputs = batch(small_config, *shape)
        torch.testing.assert_close(compiled(*inputs), model(*inputs))


def test_under_autocast_the_output_stays_near_that_of_fp32(small_config: PixArtConfig, build: Build) -> None:
    model = build(small_config)
    inputs = batch(small_config)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(*inputs)
        low.float().square().mean().backward()
    exact = model(*inputs)
    assert ((low.float() - exact).norm() / exact.norm()).item() < 0.05
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
