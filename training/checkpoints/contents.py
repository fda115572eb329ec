"""What a checkpoint of a run holds: weights and their averages, the optimiser, the clock and the recipe."""

from pathlib import Path

from torch import nn

from schemas.record import to_json
from training.checkpoints import folder as ckpt
from training.checkpoints.saving import Content
from training.config import Recipe
from training.data.sources import Facts
from training.diffusion.config import to_metadata
from training.ema import Averages
from training.optimiser import Optimiser
from training.weights import post_hoc_ema


def content_of(
    state: ckpt.TrainState,
    recipe: Recipe,
    facts: Facts,
    model: nn.Module,
    averages: Averages,
    optimiser: Optimiser,
    snapshots: Path | None,
) -> Content:
    """The checkpoint of `state`. Power-function averages also go into the folder `snapshots`, if there is one."""
    common = {
        "images_seen": str(state.plan.images_seen),
        "stage": recipe.stage,
        "vae_scaling_factor": repr(facts.scaling_factor),
        "vae_shift_factor": repr(facts.shift_factor),
        **to_metadata(recipe.objective),
    }
    weights = {ckpt.RAW: model.state_dict(), ckpt.EMA: averages.ema.state_dict()}
    metadata = {ckpt.RAW: {**common, "kind": "raw"}, ckpt.EMA: {**common, "kind": "ema"}}
    kept, step = dict[str, Path](), state.plan.step
    for std, average in averages.power.items():
        file = ckpt.POWER_EMA.format(std)
        weights[file] = average.state_dict()
        metadata[file] = {**common, "kind": "ema", post_hoc_ema.WIDTH_KEY: repr(std)}
        if snapshots is not None:
            kept[file] = snapshots / post_hoc_ema.snapshot_name(step, std)
    states = {ckpt.OPTIMISER: optimiser.state_dict()}
    texts = {ckpt.STATE: to_json(state), ckpt.RECIPE: to_json(recipe)}
    return Content(step, weights, metadata, recipe.model, states, texts, kept)
