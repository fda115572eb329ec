"""Pictures of fixed prompts, or classes, by the averaged weights while training: one PNG a time, drawn by all ranks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from schemas.errors import StorageError, UserError
from training.config import Recipe, RunConfig
from training.data.manifest import Manifest
from training.diffusion.samplers import DEFAULT_STEPS, DPM
from training.distributed.world import World
from training.ema import Average
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.sampling.drawing import DrawSettings, draw_class_latents, draw_latents
from training.sampling.pictures import LatentDecoder, Pictures, grid
from training.sampling.prompts import EncodedPrompts
from training.watching.lent import lent

GRIDS: Final = "grids"
PROMPTS_KEY: Final = "prompts"

_GUIDANCE: Final = 4.5


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """Prompts and their embeddings, as `pipelines.prompts` writes them."""

    prompts: tuple[str, ...]
    text: Tensor  # [P, L, D]
    lengths: Tensor  # [P] int64


def read_prompts_file(path: str) -> Prompts:
    """The prompts in a file. Raises `UserError` if it is none of `pipelines.prompts`."""
    try:
        with safe_open(path, framework="pt") as file:
            prompts = json.loads((file.metadata() or {})[PROMPTS_KEY])
            return Prompts(tuple(prompts), file.get_tensor("text").float(), file.get_tensor("lengths"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--grid-prompts {path}: no prompts there ({reason}). Make it with pipelines.prompts."
        ) from None


class Grids:
    """The pictures of one run, on one rank; all ranks call it together.

    Picture i is drawn from seed i. Raises `UserError` if prompts, classes or VAE do not fit the model.
    """

    def __init__(self, config: RunConfig, manifest: Manifest, world: World) -> None:
        self._recipe, self._manifest, self._world = config.recipe, manifest, world
        self._run, model = Path(config.out), config.recipe.model
        self._decoder = LatentDecoder(config.grid_vae)
        if self._decoder.channels != model.in_channels:
            raise UserError(
                f"--grid-vae {config.grid_vae}: {self._decoder.channels} latent channels, the data has "
                f"{model.in_channels}. Give the VAE that made the latents."
            )
        self._decoder.to(world.device)
        self._conditions: Prompts | tuple[int, ...] = _conditions(config.recipe, config)
        side = model.position_base * model.patch * self._decoder.cell
        self._settings = DrawSettings(DPM, DEFAULT_STEPS[DPM], _GUIDANCE, side, side)

    @property
    def count(self) -> int:
        """Pictures a time."""
        return len(self._conditions.prompts if isinstance(self._conditions, Prompts) else self._conditions)

    def __call__(self, step: int, model: nn.Module, average: Average) -> Pictures | None:
        """Draw with the weights of `average`, and write the PNG; the grid [H, W, 3] on rank 0.

        Raises `StorageError` where it cannot be written.
        """
        world = self._world
        # As many pictures on each rank, so that none of them waits alone; what is drawn twice is thrown away.
        each = -(-self.count // world.size)
        mine = [min(world.rank * each + i, self.count - 1) for i in range(each)]
        with lent(model, average):
            latents = self._draw(model, mine)
        facts = self._manifest.facts
        drawn = self._decoder(latents, facts.scaling_factor, facts.shift_factor)
        found = {
            number: picture
            for rank in world.from_all(dict(zip(mine, drawn, strict=True)))
            for number, picture in rank.items()
        }
        if world.rank:
            return None
        together = grid(np.stack([found[number] for number in range(self.count)]))
        path = self._run / GRIDS / f"step-{step:08d}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_suffix(".part.png")
            Image.fromarray(together).save(aside)
            aside.replace(path)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error.strerror}). Free space or check it.") from None
        return together

    def _draw(self, model: nn.Module, numbers: list[int]) -> Tensor:
        objective, conditions, cell = self._recipe.objective, self._conditions, self._decoder.cell
        if isinstance(conditions, tuple):
            assert isinstance(model, DiT)
            classes = [conditions[number] for number in numbers]
            return draw_class_latents(model, objective, classes, numbers, self._settings, cell)
        assert isinstance(model, PixArt)
        texts = EncodedPrompts(conditions.text[numbers], conditions.lengths[numbers], ())
        null = torch.tensor(self._manifest.null_text).float()
        return draw_latents(model, objective, texts, null, numbers, self._settings, cell)


def _conditions(recipe: Recipe, config: RunConfig) -> Prompts | tuple[int, ...]:
    model = recipe.model
    if isinstance(model, DitConfig):
        odd = [number for number in config.grid_classes if not 0 <= number < model.classes]
        if odd or not config.grid_classes:
            raise UserError(f"--grid-classes {odd}: name classes from 0 to {model.classes - 1}.")
        return config.grid_classes
    prompts = read_prompts_file(config.grid_prompts)
    assert isinstance(model, PixArtConfig)
    if prompts.text.shape[2] != model.caption_channels:
        raise UserError(
            f"--grid-prompts {config.grid_prompts}: text {prompts.text.shape[2]} wide, the data's is "
            f"{model.caption_channels}. Use the T5 that embedded the captions."
        )
    return prompts
