import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.errors import UserError
from training.models.block import SelfAttention
from training.models.config import PIXART_SIZES, PixArtConfig
from training.models.pixart import PixArt

Build = Callable[[PixArtConfig], PixArt]

XL = PIXART_SIZES["XL/2"]


def batch(config: PixArtConfig, rows: int = 8, columns: int = 4) -> list[Tensor]:
    """latents, timesteps, text, lengths."""
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(3, config.in_channels, rows, columns, generator=g)
    text = torch.randn(3, 7, config.caption_channels, generator=g)
    return [latents, torch.tensor([0, 500, 999]), text, torch.tensor([1, 4, 7])]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modulation": "per-block"}, 833_213_984),
        ({"compressed_layers": tuple(range(14, 28))}, 610_856_096 + 14 * 8_064),
        ({"qk_norm": True}, 610_856_096 + 28 * 4 * 1152),
        ({"null_caption": "buffer"}, 610_856_096),
    ],
)
def test_each_option_has_exactly_the_parameters_it_should(change: dict[str, object], expected: int) -> None:
    with torch.device("meta"):
        model = PixArt(dataclasses.replace(XL, **change))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_the_baseline_of_the_ablation_starts_at_zero_and_is_conditioned_on_the_mean_of_the_text(
    small_config: PixArtConfig, build: Build
) -> None:
    config = dataclasses.replace(small_config, modulation="per-block")
    inputs = batch(config)
    torch.manual_seed(0)
    assert not PixArt(config)(*inputs).any()
    model = build(config)
    for block in model.blocks:
        torch.nn.init.zeros_(block.cross_attn.proj.weight)
    base = model(*inputs)
    swapped = inputs[2].clone()
    swapped[2] = swapped[2].flip(0)
    torch.testing.assert_close(model(inputs[0], inputs[1], swapped, inputs[3]), base, rtol=1e-5, atol=1e-5)
    changed = inputs[2].clone()
    changed[:, 0] += 1
    assert not torch.allclose(model(inputs[0], inputs[1], changed, inputs[3]), base, atol=1e-3)


@pytest.mark.parametrize("option", [{}, {"modulation": "per-block"}, {"qk_norm": True}, {"compressed_layers": (1,)}])
def test_what_padding_holds_changes_nothing_under_any_option(
    small_config: PixArtConfig, build: Build, option: dict[str, object]
) -> None:
    config = dataclasses.replace(small_config, **option)
    model = build(config)
    latents, timesteps, text, lengths = batch(config)
    spoilt = text.clone()
    for b, length in enumerate(lengths.tolist()):
        spoilt[b, length:] = torch.nan
    assert torch.equal(model(latents, timesteps, text, lengths), model(latents, timesteps, spoilt, lengths))


@pytest.mark.parametrize("option", [{"modulation": "per-block"}, {"qk_norm": True}, {"compressed_layers": (0, 1)}])
def test_every_parameter_of_an_option_learns_and_the_model_compiles(
    small_config: PixArtConfig, build: Build, option: dict[str, object]
) -> None:
    config = dataclasses.replace(small_config, **option)
    model = build(config)
    out = model(*batch(config))
    out.square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch(config)), out)


def plain(attention: SelfAttention, x: Tensor, rows: int, columns: int, factor: int) -> Tensor:
    """Compressed, normalised attention of one head, square by square."""
    query, key, value = F.linear(x, attention.qkv.weight, attention.qkv.bias).split(x.shape[-1], dim=-1)

    def compress(t: Tensor) -> Tensor:
        squares = []
        for top in range(0, rows, factor):
            for left in range(0, columns, factor):
                sum_: Tensor = attention.sr.bias
                for i in range(factor):
                    for j in range(factor):
                        sum_ = sum_ + t[:, (top + i) * columns + left + j] * attention.sr.weight[:, 0, i, j]
                squares.append(attention.norm(sum_))
        return torch.stack(squares, dim=1)

    assert isinstance(attention.q_norm, torch.nn.LayerNorm)
    assert isinstance(attention.k_norm, torch.nn.LayerNorm)
    query, key, value = attention.q_norm(query), attention.k_norm(compress(key)), compress(value)
    weights = (query @ key.mT / x.shape[-1] ** 0.5).softmax(-1)
    out: Tensor = attention.proj(weights @ value)
    return out


@pytest.mark.parametrize("factor", [2, 3])
def test_compressed_and_normalised_attention_equals_a_plain_loop(factor: int) -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, 1, qk_norm=True, compression=factor).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6 * 12, 8, dtype=torch.float64)
    torch.testing.assert_close(attention(x, 6, 12), plain(attention, x, 6, 12, factor), rtol=1e-10, atol=1e-12)


def test_compression_starts_as_the_mean_of_each_square() -> None:
    attention = SelfAttention(8, 2, compression=2)
    x = torch.randn(1, 16, 8)
    mean = F.avg_pool2d(x.mT.view(1, 8, 4, 4), 2).flatten(2).mT
    torch.testing.assert_close(attention._compress(x, 4, 4), F.layer_norm(mean, (8,)))


def test_a_grid_that_does_not_compress_evenly_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 x 4 tokens"):
        SelfAttention(8, 2, compression=2)(torch.randn(1, 12, 8), 3, 4)


def test_the_null_caption_is_kept_in_the_state_only_if_asked_and_never_trained(small_config: PixArtConfig) -> None:
    kept = PixArt(dataclasses.replace(small_config, null_caption="buffer", text_tokens=6))
    assert kept.state_dict()["y_embedder.y_embedding"].shape == (6, 20)
    assert "y_embedder.y_embedding" not in dict(kept.named_parameters())
    assert "y_embedder.y_embedding" not in PixArt(small_config).state_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"modulation": "double"},
        {"null_caption": "zeros"},
        {"compressed_layers": (1, 0)},
        {"compressed_layers": (0, 0)},
        {"compressed_layers": (2,)},
        {"compression": 1},
    ],
)
def test_an_option_that_cannot_be_is_told_in_one_line(small_config: PixArtConfig, change: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(small_config, **change)
    assert "\n" not in str(caught.value)
