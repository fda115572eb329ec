"""The names that diffusers' `PixArtTransformer2DModel` gives to the parameters of a PixArt, both ways."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from schemas.errors import UserError
from training.models.config import PixArtConfig
from training.models.official import (
    ALPHA_TOKENS,
    NULL_CAPTION,
    Choices,
    Converted,
    check_keys,
    check_positions,
    without_null_caption,
)
from training.models.pixart import PixArt

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


_POSITIONS: Final = "pos_embed.pos_embed"  # in files of older versions
_FIXED: Final[dict[str, Any]] = {  # what a PixArt is in diffusers' configuration, where it says so
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_type": "default",
    "double_self_attention": False,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "norm_type": "ada_norm_single",
    "num_embeds_ada_norm": 1000,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "use_linear_projection": False,
}
_NEEDED: Final = (
    "attention_head_dim",
    "caption_channels",
    "in_channels",
    "num_attention_heads",
    "num_layers",
    "patch_size",
    "sample_size",
)


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


def from_diffusers(state: Mapping[str, Tensor], theirs: Mapping[str, Any], choices: Choices) -> Converted[PixArtConfig]:
    """A PixArt in our names from a state dict of diffusers and the config.json beside it.

    Raises `UserError` for keys that are missing, unknown or of another shape, for a stored position table that is not
    the computed one, and for a configuration that is no PixArt's.
    """
    config = config_from_diffusers(theirs, choices)
    notes = []
    table = state.get(_POSITIONS)
    if table is not None:
        same = table.shape == (1, config.position_base**2, config.hidden)
        if not same or check_positions(table, config.position_base, config.position_scale) > 1e-4:
            raise UserError(f"{_POSITIONS}: is not what the configuration says of positions. Use other weights.")
        notes.append(f"{_POSITIONS} dropped: it is computed")
    if choices.text_tokens is None:
        notes.append(f"captions of at most {config.text_tokens} tokens are supposed")
    with torch.device("meta"):
        wanted = PixArt(config).state_dict()
    names = {name: diffusers_names(name) for name in wanted}
    found = {name: tensor.shape for name, tensor in state.items() if name != _POSITIONS}
    check_keys(found, {name: tensor.shape for name, tensor in to_diffusers(wanted).items()})
    return Converted(
        config, {ours: torch.cat([state[part] for part in parts]) for ours, parts in names.items()}, (*notes,)
    )


def config_from_diffusers(theirs: Mapping[str, Any], choices: Choices) -> PixArtConfig:
    """The configuration of the PixArt that a config.json of diffusers describes. Raises `UserError` if it is none."""
    odd = [f"{key} is {theirs[key]!r}" for key, value in _FIXED.items() if key in theirs and theirs[key] != value]
    lacking = [f"{key} is no number" for key in _NEEDED if not isinstance(theirs.get(key), int)]
    if odd or lacking:
        raise UserError(f"config.json: not that of a PixArt ({', '.join([*odd, *lacking])}). Use another model.")
    hidden = theirs["num_attention_heads"] * theirs["attention_head_dim"]
    channels, sample_size = theirs["in_channels"], theirs["sample_size"]
    out_channels = theirs.get("out_channels") or channels
    if theirs.get("cross_attention_dim", hidden) != hidden or out_channels not in (channels, 2 * channels):
        raise UserError("config.json: cross_attention_dim or out_channels is not that of a PixArt. Use another model.")
    micro, scale = theirs.get("use_additional_conditions"), theirs.get("interpolation_scale")
    if choices.null_caption == "buffer":
        raise UserError(f"diffusers keeps no {NULL_CAPTION}. Leave the null caption out.")
    if choices.heads not in (None, theirs["num_attention_heads"]):
        raise UserError(f"config.json: says {theirs['num_attention_heads']} heads. Leave the number of heads out.")
    base = sample_size // theirs["patch_size"]
    if choices.position_base not in (None, base) or choices.position_scale not in (None, scale):
        raise UserError("config.json: says the resolution and the scale of positions. Leave them out.")
    return PixArtConfig(
        depth=theirs["num_layers"],
        hidden=hidden,
        heads=theirs["num_attention_heads"],
        patch=theirs["patch_size"],
        in_channels=channels,
        caption_channels=theirs["caption_channels"],
        text_tokens=choices.text_tokens or ALPHA_TOKENS,
        learn_sigma=out_channels == 2 * channels,
        micro_conditions=sample_size == 128 if micro is None else micro,
        position_base=base,
        position_scale=float(max(sample_size // 64, 1) if scale is None else scale),
    )


def for_diffusers(config: PixArtConfig, state: Mapping[str, Tensor]) -> tuple[PixArtConfig, dict[str, Tensor], str]:
    """The configuration and the state dict that diffusers can take, in its names, and a line on what was dropped.

    Raises `UserError` for options that `PixArtTransformer2DModel` lacks.
    """
    lacking = [
        name
        for name, given in (
            ("an adaLN per block", config.modulation != "single"),
            ("QK-norm", config.qk_norm),
            ("key/value compression", bool(config.compressed_layers)),
            (f"an MLP ratio of {config.mlp_ratio:g}", config.mlp_ratio != 4),
        )
        if given
    ]
    if lacking:
        raise UserError(f"diffusers' PixArtTransformer2DModel has no {' and no '.join(lacking)}. Convert to official.")
    note = f"{NULL_CAPTION} dropped: diffusers embeds the empty string instead" if NULL_CAPTION in state else ""
    config, kept = without_null_caption(config, state)
    return config, to_diffusers(kept), note


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
