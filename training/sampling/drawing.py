"""Pictures from prompts: text encoder, model and VAE, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from schemas.errors import UserError
from training.diffusion.config import ObjectiveConfig, from_metadata
from training.diffusion.samplers import check_sampler
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.pixart import PixArt
from training.sampling.guidance import null_condition, sample, sample_classes
from training.sampling.pictures import LatentDecoder, Pictures
from training.sampling.prompts import EncodedPrompts, PromptEncoder, text_width
from training.weights.files import load_model


@dataclass(frozen=True, slots=True)
class DrawSettings:
    """How pictures are sampled. Sizes are those of the pictures in pixels."""

    sampler: str
    steps: int
    guidance: float  # 1 is none
    height_px: int
    width_px: int


class TextToImage:
    """All that pictures need, on one device: for many pictures, since everything stays loaded.

    Raises `UserError` if a part does not load or does not fit the others.
    """

    def __init__(self, weights: Path, t5: str, vae: str, device: torch.device) -> None:
        self.model, self.metadata = load_model(weights, device)
        self.objective = from_metadata(self.metadata, str(weights))
        self.decoder = LatentDecoder(vae)
        check_fit(weights, self.model.config, t5, vae, self.decoder)
        self._encoder = PromptEncoder(t5, device, text_dtype(device))
        self.decoder.to(device)
        null = self._encoder([""], self.model.config.text_tokens)
        self._null = null.text[0, : int(null.lengths[0])]

    def check(self, settings: DrawSettings) -> None:
        """Raise `UserError` if the model cannot be sampled from so."""
        check_sampler(settings.sampler, self.objective, self.model.config.learn_sigma, settings.steps)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], settings: DrawSettings
    ) -> tuple[Pictures, tuple[bool, ...]]:
        """A picture [H, W, 3] a prompt from its seed, stacked, and which prompts were cut at the model's limit."""
        texts = self._encoder(prompts, self.model.config.text_tokens)
        latents = draw_latents(self.model, self.objective, texts, self._null, seeds, settings, self.decoder.cell)
        scaling, shift = float(self.metadata["vae_scaling_factor"]), float(self.metadata["vae_shift_factor"])
        return self.decoder(latents, scaling, shift), texts.truncated


def draw_latents(
    model: PixArt,
    objective: ObjectiveConfig,
    texts: EncodedPrompts,
    null: Tensor,
    seeds: Sequence[int],
    settings: DrawSettings,
    cell: int,
) -> Tensor:
    """Scaled latents [B, C, h, w] of encoded prompts. null: [L0, D], the empty prompt; cell: pixels a latent cell.

    Raises `UserError` where the memory of a GPU is too small for so many at a time.
    """
    device = next(model.parameters()).device
    height, width, count = settings.height_px, settings.width_px, len(texts.text)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return sample(
                model,
                texts.text.to(device),
                texts.lengths.to(device),
                *null_condition(model, null.to(device), texts.lengths.to(device)),
                height=height // cell,
                width=width // cell,
                seeds=seeds,
                steps=settings.steps,
                guidance=settings.guidance,
                sizes=torch.tensor([[height, width, height / width]] * count, device=device),
                sampler=settings.sampler,
                objective=objective,
            )
    except torch.OutOfMemoryError:
        raise UserError(f"GPU memory does not hold {count} pictures at a time. Lower --batch or --size.") from None


def draw_class_latents(
    model: DiT,
    objective: ObjectiveConfig,
    classes: Sequence[int],
    seeds: Sequence[int],
    settings: DrawSettings,
    cell: int,
) -> Tensor:
    """`draw_latents` for a class-conditional model. Raises `UserError` for classes that it does not have, too."""
    device = next(model.parameters()).device
    for number in classes:
        if not 0 <= number < model.config.classes:
            raise UserError(f"class {number}: the model has the classes 0 to {model.config.classes - 1}. Use these.")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return sample_classes(
                model,
                torch.tensor(classes, device=device),
                height=settings.height_px // cell,
                width=settings.width_px // cell,
                seeds=seeds,
                steps=settings.steps,
                guidance=settings.guidance,
                sampler=settings.sampler,
                objective=objective,
            )
    except torch.OutOfMemoryError:
        raise UserError(
            f"GPU memory does not hold {len(classes)} pictures at a time. Lower --batch or --size."
        ) from None


def text_dtype(device: torch.device) -> torch.dtype:
    """What a T5 computes in on `device`."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def check_fit(
    weights: Path, config: PixArtConfig | DitConfig, t5: str | None, vae: str, decoder: LatentDecoder
) -> None:
    """Raise `UserError` unless T5 and VAE are of the kind that the model in `weights` was trained with."""
    if isinstance(config, PixArtConfig) and t5 and (width := text_width(t5)) != config.caption_channels:
        raise UserError(
            f"{t5}: a T5 {width} wide, but {weights} was trained on embeddings "
            f"{config.caption_channels} wide. Give the T5 that made them."
        )
    if decoder.channels != config.in_channels:
        raise UserError(
            f"{vae}: a VAE of {decoder.channels} latent channels, but {weights} was trained on "
            f"{config.in_channels}. Give the VAE that made them."
        )


def picture_size(text: str | None, config: PixArtConfig | DitConfig, cell: int) -> tuple[int, int]:
    """Height and width in pixels that `--size text` means; None is the model's training size.

    Raises `UserError` for what is no size, or none of this model and VAE.
    """
    token_px = cell * config.patch
    if text is None:
        return config.position_base * token_px, config.position_base * token_px
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise UserError(f"--size {text}: not a size. Give pixels, such as 256, or HEIGHTxWIDTH, such as 512x768.")
    height_px, width_px = int(sides[0]), int(sides[-1])
    if height_px % token_px or width_px % token_px:
        raise UserError(f"--size {text}: both sides must be multiples of {token_px} px for this model and VAE.")
    return height_px, width_px
