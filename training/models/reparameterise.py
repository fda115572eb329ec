"""DiT to PixArt: how stage 2 starts from stage 1 (PixArt-α, section 2.3).

With e the embedded time at a chosen t, a = SiLU(e), and (W_i, b_i) the adaLN of DiT's block i, a PixArt with the shared
projection (W, b) modulates its blocks as DiT without class does at that t once the tables are
E_i = (W_i a + b_i) - (W a + b), and its final layer once E = (W_f a + b_f) - e. The paper leaves two things open, and
no code for it was released: what (W, b) is, and what "without class" means. Both readings of both are here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.errors import UserError
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.embeddings import sinusoids
from training.models.pixart import PixArt
from training.models.reading import Reading

_COPIED: Final = ("x_embedder.", "t_embedder.", "final_layer.linear.")
_COPIED_IN_BLOCK: Final = ("attn.", "mlp.")


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a PixArt is from the DiT without class at one timestep: norm of the difference over norm of the DiT's."""

    timestep: int
    blocks: tuple[float, ...]  # of the modulation [6, D] of each block
    final: float  # of the modulation [2, D] of the final layer
    output: float  # of the predictions for the given latents


def pixart_config(dit: DitConfig, caption_channels: int = 4096, text_tokens: int = 120) -> PixArtConfig:
    """The PixArt that a DiT of this size becomes."""
    return PixArtConfig(
        depth=dit.depth,
        hidden=dit.hidden,
        heads=dit.heads,
        patch=dit.patch,
        mlp_ratio=dit.mlp_ratio,
        in_channels=dit.in_channels,
        caption_channels=caption_channels,
        text_tokens=text_tokens,
        learn_sigma=dit.learn_sigma,
        position_base=dit.position_base,
    )


@torch.no_grad()
def reparameterise(
    dit_state: Mapping[str, Tensor], dit: DitConfig, pixart: PixArtConfig, reading: Reading, seed: int = 0
) -> dict[str, Tensor]:
    """The state dict of a PixArt that at `reading.timestep` predicts what the DiT does without a class.

    What DiT lacks (text, and the shared projection if it is fresh) is drawn from `seed` as at any initialisation, with
    the output of cross-attention at zero. `pixart` may also be the per-block baseline of the ablation, which takes over
    every adaLN and is exact at every timestep. Tables are computed in float64; the result has the type of `dit_state`.

    Raises `UserError` if the two sizes differ, or for micro-conditions, QK-norm or compression, which DiT lacks.
    """
    _check_fit(dit, pixart)
    check_dit_state(dit_state, dit)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = PixArt(pixart).state_dict()
    dtype = dit_state["final_layer.linear.weight"].dtype
    out = {name: dit_state[name] if _is_copied(name) else tensor.to(dtype) for name, tensor in fresh.items()}
    if pixart.modulation == "per-block":
        return out | _per_block(dit_state, dit, pixart, reading)
    time = embed_time(dit_state, reading.timestep)
    condition = F.silu(time + _class_part(dit_state, dit, reading.without_class))
    if reading.shared == "first-block":
        for kind in ("weight", "bias"):
            out[f"t_block.1.{kind}"] = dit_state[f"blocks.0.adaLN_modulation.1.{kind}"].clone()
    shared = _linear(out, "t_block.1", F.silu(time))
    for i in range(dit.depth):
        table = _linear(dit_state, f"blocks.{i}.adaLN_modulation.1", condition) - shared
        out[f"blocks.{i}.scale_shift_table"] = table.view(6, -1).to(dtype)
    final = _linear(dit_state, "final_layer.adaLN_modulation.1", condition).view(2, -1)
    out["final_layer.scale_shift_table"] = (final - time).to(dtype)
    return out


@torch.no_grad()
def distances(
    dit_state: Mapping[str, Tensor],
    dit: DitConfig,
    pixart_state: Mapping[str, Tensor],
    pixart: PixArtConfig,
    timesteps: Sequence[int],
    latents: Tensor,
    without_class: str = "zero",
) -> tuple[Distance, ...]:
    """How far the adaLN-single PixArt is from the DiT at each of `timesteps`, for latents [B, C, H, W].

    The text is one row of zeros, which counts for nothing while cross-attention is at zero.
    """
    if pixart.modulation != "single":
        raise ValueError("only adaLN-single differs from the DiT; the per-block baseline is exact at every timestep")
    with torch.device("meta"):
        from_dit, to_pixart = DiT(dit), PixArt(pixart)
    from_dit.load_state_dict(dict(dit_state), assign=True)
    to_pixart.load_state_dict(dict(pixart_state), assign=True)
    class_part = _class_part(dit_state, dit, without_class)
    text = torch.zeros(len(latents), 1, pixart.caption_channels, device=latents.device)
    lengths = torch.ones(len(latents), dtype=torch.long, device=latents.device)
    found = []
    for timestep in timesteps:
        condition = embed_time(dit_state, timestep) + class_part
        times = torch.full((len(latents),), timestep, device=latents.device)
        # In the models' own precision, so that the output tells of nothing but the two models.
        embedded = from_dit.t_embedder(times) + class_part.to(from_dit.final_layer.linear.weight.dtype)
        *blocks, final = _modulation_distances(dit_state, pixart_state, dit.depth, timestep, condition)
        wanted = from_dit.denoise(latents, embedded)
        output = _relative(to_pixart(latents, times, text, lengths), wanted)
        found.append(Distance(timestep, tuple(blocks), final, output))
    return tuple(found)


def embed_time(state: Mapping[str, Tensor], timestep: int) -> Tensor:
    """The embedded time [D] of either model, in float64 but for the sinusoids, which are float32 as in the models."""
    angles = sinusoids(torch.tensor([timestep], device=state["t_embedder.mlp.0.weight"].device))[0]
    return _linear(state, "t_embedder.mlp.2", F.silu(_linear(state, "t_embedder.mlp.0", angles)))


def check_dit_state(state: Mapping[str, Tensor], config: DitConfig) -> None:
    """Raise `UserError`, naming the first keys, unless `state` is exactly that of a `DiT` of this configuration."""
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in DiT(config).state_dict().items()}
    odd = sorted(
        name for name in set(state) | set(wanted) if name not in state or state[name].shape != wanted.get(name)
    )
    if odd:
        raise UserError(f"{len(odd)} tensors are not those of the DiT ({', '.join(odd[:3])}). Use other weights.")


def _check_fit(dit: DitConfig, pixart: PixArtConfig) -> None:
    names = ("depth", "hidden", "heads", "patch", "mlp_ratio", "in_channels", "learn_sigma")
    odd = [name for name in names if getattr(dit, name) != getattr(pixart, name)]
    if odd:
        raise UserError(f"this DiT and this PixArt differ in {', '.join(odd)}. Use the PixArt of the DiT's size.")
    if pixart.micro_conditions or pixart.qk_norm or pixart.compressed_layers:
        raise UserError(
            "a DiT has neither micro-conditions, QK-norm nor compression, so its PixArt cannot start with them equal "
            "to it. Leave them out."
        )


def _is_copied(name: str) -> bool:
    if not name.startswith("blocks."):
        return name.startswith(_COPIED)
    return name.split(".", 2)[2].startswith(_COPIED_IN_BLOCK)


def _per_block(
    state: Mapping[str, Tensor], dit: DitConfig, pixart: PixArtConfig, reading: Reading
) -> dict[str, Tensor]:
    """Every adaLN as it is; text counts for nothing yet, and the null class, if meant, lies in its bias."""
    out = {name: tensor for name, tensor in state.items() if "adaLN_modulation" in name}
    like = state["final_layer.linear.weight"]
    out["pooled_embedder.weight"] = like.new_zeros(like.shape[1], pixart.caption_channels)
    out["pooled_embedder.bias"] = _class_part(state, dit, reading.without_class).to(like.dtype)
    return out


def _class_part(state: Mapping[str, Tensor], dit: DitConfig, without_class: str) -> Tensor:
    null = state["y_embedder.embedding_table.weight"][dit.classes].double()
    return null if without_class == "null-class" else torch.zeros_like(null)


def _linear(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x.double(), state[f"{name}.weight"].double(), state[f"{name}.bias"].double())


def _modulation_distances(
    dit_state: Mapping[str, Tensor], pixart_state: Mapping[str, Tensor], depth: int, timestep: int, condition: Tensor
) -> Iterator[float]:
    """Of each block, then of the final layer."""
    time, active = embed_time(pixart_state, timestep), F.silu(condition)
    shared = _linear(pixart_state, "t_block.1", F.silu(time))
    for i in range(depth):
        wanted = _linear(dit_state, f"blocks.{i}.adaLN_modulation.1", active)
        yield _relative(pixart_state[f"blocks.{i}.scale_shift_table"].double().flatten() + shared, wanted)
    wanted = _linear(dit_state, "final_layer.adaLN_modulation.1", active)
    yield _relative((pixart_state["final_layer.scale_shift_table"].double() + time).flatten(), wanted)


def _relative(found: Tensor, wanted: Tensor) -> float:
    # A DiT that was never trained modulates by zero and predicts zero.
    return ((found - wanted).norm() / wanted.norm().clamp_min(torch.finfo(wanted.dtype).tiny)).item()
