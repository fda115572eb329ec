"""How a run computes its model. The results are the same but for rounding, so none of it is part of the recipe."""

from torch import nn

from schemas.errors import UserError
from training.config import RunConfig
from training.data.manifest import Manifest
from training.distributed import World
from training.models.compiled import compile_blocks
from training.models.dit import DiT
from training.models.packing import check_attention
from training.models.pixart import PixArt
from training.parallel import shard
from training.text_lengths import TEXT_LENGTHS, padded_length


def set_up(model: nn.Module, config: RunConfig, manifest: Manifest, world: World) -> list[str]:
    """Choose the back-end of attention, compile, shard: `model`, in place. A line for people on each.

    Raises `UserError` for what this machine or this model cannot do.
    """
    assert isinstance(model, PixArt | DiT)
    said = []
    check_attention(config.attention, world.device, config.recipe.precision)
    if isinstance(model, PixArt):
        model.attention = config.attention
    elif config.attention != "sdpa":
        raise UserError(f"--attention {config.attention} is about text, and a DiT has none. Leave it out.")
    model.checkpoint_activations = config.checkpoint_activations
    if config.compile:
        if config.attention == "xformers":
            raise UserError("--compile cannot look into xformers. Use --attention sdpa or varlen, or do not compile.")
        shapes = shapes_of(manifest, with_text=isinstance(model, PixArt))
        own = compile_blocks(model, shapes)
        said.append(f"blocks are compiled, {f'each of {shapes} shapes' if own else f'once for {shapes} shapes'}")
    if config.shard:
        shard(model, world, config.recipe.precision == "bf16")
        said.append(f"weights, averages and optimiser are split over {world.size} ranks")
    return said


def shapes_of(manifest: Manifest, with_text: bool) -> int:
    """How many shapes of picture and padded text the data can have."""
    longest = padded_length(manifest.facts.max_tokens)
    texts = sum(length <= longest for length in TEXT_LENGTHS) if with_text else 1
    return len(manifest.buckets) * texts
