import dataclasses
from collections.abc import Callable

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor

from training.models.config import PixArtConfig
from training.models.diffusers_keys import diffusers_config, diffusers_names, to_diffusers
from training.models.pixart import PixArt

Build = Callable[[PixArtConfig], PixArt]


def test_names_are_those_of_diffusers() -> None:
    assert diffusers_names("final_layer.scale_shift_table") == ("scale_shift_table",)
    assert diffusers_names("blocks.12.scale_shift_table") == ("transformer_blocks.12.scale_shift_table",)
    assert diffusers_names("blocks.3.cross_attn.kv_linear.bias") == (
        "transformer_blocks.3.attn2.to_k.bias",
        "transformer_blocks.3.attn2.to_v.bias",
    )


def test_a_name_of_another_model_is_an_error() -> None:
    with pytest.raises(KeyError):
        to_diffusers({"blocks.0.attn.sr.weight": torch.zeros(1)})


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / (1e-3 + expected.norm())).item()


@pytest.mark.parametrize("micro_conditions", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (12, 6), (4, 16)])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_output_and_gradients_equal_those_of_diffusers(
    small_config: PixArtConfig, build: Build, micro_conditions: bool, rows: int, columns: int, scale: float
) -> None:
    config = dataclasses.replace(small_config, micro_conditions=micro_conditions, position_scale=scale)
    ours = build(config)
    theirs = PixArtTransformer2DModel(**diffusers_config(config))
    theirs.load_state_dict(to_diffusers(ours.state_dict()), strict=True)
    latents, timesteps = torch.randn(3, 4, rows, columns), torch.tensor([0, 321, 999])
    text, lengths = torch.randn(3, 9, config.caption_channels), torch.tensor([1, 9, 4])
    sizes = torch.tensor([[512.0, 512.0, 1.0], [300.0, 480.0, 0.6], [1024.0, 333.0, 3.0]]) if micro_conditions else None

    def both(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        expected = theirs.to(dtype)(
            latents.to(dtype),
            encoder_hidden_states=text.to(dtype),
            timestep=timesteps,
            added_cond_kwargs={
                "resolution": None if sizes is None else sizes[:, :2],
                "aspect_ratio": None if sizes is None else sizes[:, 2:],
            },
            encoder_attention_mask=(torch.arange(9) < lengths[:, None]).to(dtype),
        ).sample
        return ours.to(dtype)(latents.to(dtype), timesteps, text.to(dtype), lengths, sizes), expected

    assert relative_error(*both(torch.float32)) < 2e-6
    found, expected = both(torch.float64)
    assert relative_error(found, expected) < 1e-12
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = to_diffusers({n: p.grad for n, p in ours.named_parameters() if p.grad is not None})
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None
        assert relative_error(gradients[name], parameter.grad) < 1e-9, name
