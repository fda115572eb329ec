"""How a run computes its model. The results are the same but for rounding, so none of it is part of the recipe."""

from torch import nn

from schemas.errors import UserError
from training.config import RunConfig
from training.data.manifest import Manifest
from training.data.plan import accumulation_of
from training.distributed.parallel import shard
from training.distributed.world import World
from training.models.compiled import compile_blocks
from training.models.config import PixArtConfig
from training.models.dit import DiT
from training.models.packing import check_attention
from training.models.pixart import PixArt
from training.models.text_lengths import TEXT_LENGTHS, padded_length


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
        shapes = shapes_of(config, manifest, world)
        own = compile_blocks(model, shapes)
        said.append(f"blocks are compiled, {f'each of {shapes} shapes' if own else f'once for {shapes} shapes'}")
    if config.shard:
        if config.recipe.optimiser.muon_lr:
            raise UserError("--muon-lr needs whole matrices, and --shard splits them. Use one of the two.")
        shard(model, world, config.recipe.precision == "bf16")
        said.append(f"weights, averages and optimiser are split over {world.size} ranks")
    if config.deterministic:
        said.append("deterministic algorithms alone, so that the same start gives the same bits")
    return said


def shapes_of(config: RunConfig, manifest: Manifest, world: World) -> int:
    """How many shapes a micro-batch can have: of pictures, of padded text, and numbers of samples."""
    longest = padded_length(manifest.facts.max_tokens)
    with_text = isinstance(config.recipe.model, PixArtConfig)
    texts = sum(length <= longest for length in TEXT_LENGTHS) if with_text else 1
    policy = config.recipe.policy
    if policy.tokens_per_batch:
        counts = config.micro_batch
    else:
        parts = world.size * accumulation_of(policy.global_batch, config.micro_batch, world.size)
        counts = 2 if policy.global_batch % parts else 1
    return len(manifest.buckets) * texts * counts
