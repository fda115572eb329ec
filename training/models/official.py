"""State dicts of the official PixArt-α, PixArt-Σ and DiT code, to and from ours.

The names are ours, so what is left is to find the configuration that the official files do not hold, to account for
every key, and to see to the two keys that are not ours: `pos_embed`, which is computed here and must agree with what is
computed, and `y_embedder.y_embedding`, which is kept only if asked for (see `PixArt`).
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import torch
from torch import Tensor

from schemas.errors import UserError
from training.models.config import PIXART_SIZES, DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.embeddings import position_embedding
from training.models.pixart import PixArt

C = TypeVar("C", PixArtConfig, DitConfig)

POSITIONS: Final = "pos_embed"
NULL_CAPTION: Final = "y_embedder.y_embedding"
ALPHA_TOKENS: Final = 120
SIGMA_TOKENS: Final = 300
_SCALES: Final = (0.5, 1.0, 2.0, 4.0)  # of the released models, at 256, 512, 1024 and 2048 px
_TOLERANCE: Final = 1e-4  # tables from other machines differ by rounding; those of other scales by about 1
_NAMED: Final = 5
_HEADS: Final = {size.hidden: size.heads for size in PIXART_SIZES.values()}


@dataclass(frozen=True, slots=True)
class Choices:
    """What a foreign checkpoint may leave unsaid. None: as the checkpoint says, else as was released."""

    heads: int | None = None
    text_tokens: int | None = None
    position_base: int | None = None
    position_scale: float | None = None
    null_caption: str = "empty-string"


@dataclass(frozen=True, slots=True)
class Converted(Generic[C]):
    """A model in our names, and a line for people on each thing that was dropped, supposed or checked."""

    config: C
    state: dict[str, Tensor]
    notes: tuple[str, ...]


def is_dit(state: Mapping[str, Tensor]) -> bool:
    """Whether an official state dict is that of a class-conditional DiT."""
    return "y_embedder.embedding_table.weight" in state


def from_official(state: Mapping[str, Tensor], choices: Choices) -> Converted[PixArtConfig]:
    """A PixArt-α or Σ in our names.

    Raises `UserError` for keys that are missing, unknown or of another shape, for a `pos_embed` of no known scale, and
    where nothing tells the number of heads or the resolution.
    """
    tokens, notes = _text_tokens(state, choices)
    patches = _tensor(state, "x_embedder.proj.weight", 4)
    hidden, channels, patch = patches.shape[0], patches.shape[1], patches.shape[-1]
    base, scale, more = _positions(state, hidden, choices, patch, sigma=tokens == SIGMA_TOKENS)
    compressed = _blocks_with(state, "attn.sr.weight")
    config = PixArtConfig(
        depth=len(_blocks_with(state, "attn.qkv.weight")),
        hidden=hidden,
        heads=_heads(hidden, choices),
        patch=patch,
        mlp_ratio=_tensor(state, "blocks.0.mlp.fc1.weight").shape[0] / hidden,
        in_channels=channels,
        caption_channels=_tensor(state, "y_embedder.y_proj.fc1.weight").shape[1],
        text_tokens=tokens,
        learn_sigma=_tensor(state, "final_layer.linear.weight").shape[0] == 2 * channels * patch**2,
        micro_conditions="csize_embedder.mlp.0.weight" in state,
        position_base=base,
        position_scale=scale,
        null_caption=choices.null_caption,
        qk_norm="blocks.0.attn.q_norm.weight" in state,
        compressed_layers=compressed,
        compression=_tensor(state, f"blocks.{compressed[0]}.attn.sr.weight", 4).shape[-1] if compressed else 2,
    )
    kept = {name: tensor for name, tensor in state.items() if name not in (POSITIONS, NULL_CAPTION)}
    if NULL_CAPTION in state and choices.null_caption == "buffer":
        kept[NULL_CAPTION] = state[NULL_CAPTION]
    elif NULL_CAPTION in state:
        notes.append(f"{NULL_CAPTION} dropped: the null condition is the empty string's embedding")
    check_state(kept, config)
    return Converted(config, kept, (*notes, *more))


def from_official_dit(state: Mapping[str, Tensor], choices: Choices) -> Converted[DitConfig]:
    """A class-conditional DiT in our names. Raises `UserError` as `from_official` does."""
    patches = _tensor(state, "x_embedder.proj.weight", 4)
    hidden, channels, patch = patches.shape[0], patches.shape[1], patches.shape[-1]
    base, scale, notes = _positions(state, hidden, choices, patch, sigma=False)
    if scale != 1:
        raise UserError(
            f"{POSITIONS}: a DiT's coordinates are never scaled, these are by {scale:g}. Use other weights."
        )
    config = DitConfig(
        depth=len(_blocks_with(state, "attn.qkv.weight")),
        hidden=hidden,
        heads=_heads(hidden, choices),
        patch=patch,
        mlp_ratio=_tensor(state, "blocks.0.mlp.fc1.weight").shape[0] / hidden,
        in_channels=channels,
        classes=_tensor(state, "y_embedder.embedding_table.weight").shape[0] - 1,
        learn_sigma=_tensor(state, "final_layer.linear.weight").shape[0] == 2 * channels * patch**2,
        position_base=base,
    )
    kept = {name: tensor for name, tensor in state.items() if name != POSITIONS}
    check_state(kept, config)
    return Converted(config, kept, notes)


def to_official(state: Mapping[str, Tensor], config: PixArtConfig | DitConfig) -> tuple[dict[str, Tensor], str]:
    """The state dict that the official code loads, and a line for people on what is in it.

    Raises `UserError` for the per-block baseline, which has no official code, and for keys that do not fit `config`.
    """
    check_state(state, config)
    scale = 1.0
    note = f"{POSITIONS} computed for {config.position_base} x {config.position_base} tokens"
    if isinstance(config, PixArtConfig):
        if config.modulation != "single":
            raise UserError("the official code has no model with an adaLN per block. Convert an adaLN-single PixArt.")
        scale = config.position_scale
        if config.null_caption != "buffer":
            note += f"; no {NULL_CAPTION}, for the null condition here is the empty string's embedding"
    base = config.position_base
    positions = position_embedding(base, base, config.hidden, base, scale, torch.device("cpu"))
    return {**state, POSITIONS: positions}, note


def check_state(state: Mapping[str, Tensor], config: PixArtConfig | DitConfig) -> None:
    """Raise `UserError`, naming keys, unless `state` has exactly the names and shapes of the model of `config`."""
    with torch.device("meta"):
        model = PixArt(config) if isinstance(config, PixArtConfig) else DiT(config)
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_keys({name: tensor.shape for name, tensor in state.items()}, wanted)


def check_keys(found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]) -> None:
    """Raise `UserError`, naming keys, unless the names and shapes are the same."""
    shared = set(found) & set(wanted)
    odd = [
        ("missing", sorted(set(wanted) - shared)),
        ("unknown", sorted(set(found) - shared)),
        ("of another shape", sorted(name for name in shared if found[name] != wanted[name])),
    ]
    told = [f"{len(names)} {what} ({named(names)})" for what, names in odd if names]
    if told:
        raise UserError(f"the checkpoint's keys do not fit the model: {'; '.join(told)}. Use other weights.")


def named(names: list[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def check_positions(found: Tensor, base: int, scale: float) -> float:
    """The largest difference of a stored position table [1, base * base, D] from the computed one."""
    computed = position_embedding(base, base, found.shape[-1], base, scale, found.device)
    return (found.float() - computed).abs().max().item()


def default_scale(base: int, *, sigma: bool) -> float:
    """What coordinates were divided by in the released models of this resolution."""
    return base / 32 if sigma else max(1.0, base / 32)


def _positions(
    state: Mapping[str, Tensor], hidden: int, choices: Choices, patch: int, *, sigma: bool
) -> tuple[int, float, tuple[str, ...]]:
    """Tokens a side at the training resolution, the scale of coordinates, and how they came to be known."""
    table = state.get(POSITIONS)
    if table is None:
        return _supposed_positions(choices, patch, sigma=sigma)
    base = math.isqrt(table.shape[1]) if table.dim() == 3 else 0
    if table.dim() != 3 or base**2 != table.shape[1] or table.shape[2] != hidden:
        raise UserError(
            f"{POSITIONS}: shape {tuple(table.shape)} is no square of tokens {hidden} wide. Use other weights."
        )
    if choices.position_base not in (None, base):
        raise UserError(f"{POSITIONS}: made for {base * 8 * patch} px, not for the size given. Leave that out.")
    scales = _SCALES if choices.position_scale is None else (choices.position_scale,)
    differences = {scale: check_positions(table, base, scale) for scale in scales}
    scale = min(differences, key=lambda candidate: differences[candidate])
    if differences[scale] > _TOLERANCE:
        tried = ", ".join(f"{candidate:g}" for candidate in scales)
        raise UserError(
            f"{POSITIONS}: differs by {differences[scale]:.2g} from positions of scale {tried}, so dropping it would "
            f"change the model. Give the scale that it was trained with."
        )
    note = f"{POSITIONS} dropped: it is computed, for {base} x {base} tokens and scale {scale:g}"
    return base, scale, (f"{note} (differs by at most {differences[scale]:.1g})",)


def _supposed_positions(choices: Choices, patch: int, *, sigma: bool) -> tuple[int, float, tuple[str, ...]]:
    if choices.position_base is None:
        raise UserError(
            f"the checkpoint has no {POSITIONS}, so nothing tells its resolution. Give the pixels a side that it was "
            f"trained at."
        )
    base = choices.position_base
    scale = default_scale(base, sigma=sigma) if choices.position_scale is None else choices.position_scale
    return base, scale, (f"no {POSITIONS} in it: positions for {base * patch * 8} px with scale {scale:g}, as given",)


def _text_tokens(state: Mapping[str, Tensor], choices: Choices) -> tuple[int, list[str]]:
    null = _tensor(state, NULL_CAPTION) if NULL_CAPTION in state else None
    if null is None:
        if choices.null_caption == "buffer":
            raise UserError(f"the checkpoint has no {NULL_CAPTION} to keep. Leave the null caption out.")
        tokens = choices.text_tokens or ALPHA_TOKENS
        return tokens, [f"no {NULL_CAPTION} in it: captions of at most {tokens} tokens are supposed"]
    if choices.text_tokens not in (None, null.shape[0]):
        raise UserError(
            f"{NULL_CAPTION}: says {null.shape[0]} tokens, not {choices.text_tokens}. Leave the tokens out."
        )
    return null.shape[0], []


def _heads(hidden: int, choices: Choices) -> int:
    if choices.heads is not None:
        return choices.heads
    if hidden not in _HEADS:
        raise UserError(f"the checkpoint is {hidden} wide, which is no released size. Give its number of heads.")
    return _HEADS[hidden]


def _blocks_with(state: Mapping[str, Tensor], inner: str) -> tuple[int, ...]:
    """The numbers of the blocks that have a tensor of this name."""
    parts = (name.split(".", 2) for name in state if name.startswith("blocks.") and name.endswith(f".{inner}"))
    return tuple(sorted(int(number) for _, number, rest in parts if rest == inner and number.isdecimal()))


def _tensor(state: Mapping[str, Tensor], name: str, dimensions: int = 2) -> Tensor:
    if name not in state or state[name].dim() != dimensions:
        raise UserError(
            f"the checkpoint has no {name} of {dimensions} dimensions: it is neither a PixArt nor a DiT. Use other "
            f"weights."
        )
    return state[name]


def without_null_caption(config: PixArtConfig, state: Mapping[str, Tensor]) -> tuple[PixArtConfig, dict[str, Tensor]]:
    """The same model without the released code's null caption."""
    kept = {name: tensor for name, tensor in state.items() if name != NULL_CAPTION}
    return dataclasses.replace(config, null_caption="empty-string"), kept
