"""The names that diffusers' `PixArtTransformer2DModel` gives to the parameters of a PixArt."""

from collections.abc import Mapping
from typing import Any, Final

from torch import Tensor

from training.models.config import PixArtConfig

_OUTSIDE_BLOCKS: Final = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer": "",  # its scale_shift_table lies at the root
}
_IN_BLOCK: Final[dict[str, tuple[str, ...]]] = {  # several names: equal parts along the first dimension, in this order
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "cross_attn.q_linear": ("attn2.to_q",),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
    "cross_attn.proj": ("attn2.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
    "": ("",),  # scale_shift_table
}


def to_diffusers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a `PixArt` under diffusers' names. Raises `KeyError` for a name that is not a PixArt's."""
    out: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        targets = diffusers_names(name)
        out.update(zip(targets, tensor.chunk(len(targets)), strict=True))
    return out


def diffusers_names(name: str) -> tuple[str, ...]:
    """What diffusers calls the parameter `name`; several names where it holds equal parts of it apart."""
    owner, _, kind = name.rpartition(".")
    if not owner.startswith("blocks."):
        return (f"{_OUTSIDE_BLOCKS[owner]}.{kind}".removeprefix("."),)
    _, index, inner = f"{owner}.".split(".", 2)
    return tuple(
        f"transformer_blocks.{index}.{target}.{kind}".replace("..", ".")
        for target in _IN_BLOCK[inner.removesuffix(".")]
    )


def diffusers_config(config: PixArtConfig) -> dict[str, Any]:
    """The arguments with which diffusers builds the same model."""
    return {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.hidden // config.heads,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "cross_attention_dim": config.hidden,
        "attention_bias": True,
        "sample_size": config.position_base * config.patch,
        "patch_size": config.patch,
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": 1000,
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": config.caption_channels,
        "use_additional_conditions": config.micro_conditions,
        "interpolation_scale": config.position_scale,
    }
