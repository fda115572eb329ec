"""Latents from text or from classes, with classifier-free guidance."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from training.diffusion.config import ObjectiveConfig
from training.diffusion.samplers import DEFAULT_STEPS, DPM, Solver, make_solver
from training.models.config import DitConfig, PixArtConfig
from training.models.pixart import PixArt


class Denoiser(Protocol):
    """What can be sampled from: a `PixArt`, or anything called like one."""

    config: PixArtConfig

    def __call__(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, text_lengths: Tensor, sizes: Tensor | None = None
    ) -> Any:
        """As `PixArt.forward`."""


class ClassDenoiser(Protocol):
    """What can be sampled from by class: a `DiT`, or anything called like one."""

    config: DitConfig

    def __call__(self, latents: Tensor, timesteps: Tensor, labels: Tensor) -> Any:
        """As `DiT.forward`."""


@torch.no_grad()
def sample(
    model: Denoiser,
    text: Tensor,
    text_lengths: Tensor,
    null_text: Tensor,
    null_length: int | Tensor,
    *,
    height: int,
    width: int,
    seeds: Sequence[int],
    steps: int = DEFAULT_STEPS[DPM],
    guidance: float = 4.5,
    sizes: Tensor | None = None,
    sampler: str = DPM,
    objective: ObjectiveConfig | None = None,
) -> Tensor:
    """Scaled latents [B, C, height, width], float32, on the device of `text`.

    text: [B, L, D] embeddings of true lengths text_lengths [B]. null_text: [L0, D], the embedding of the empty string,
    of which the first null_length rows count (int64 [B]: for each picture another number). height, width: latent cells.
    seeds: one a picture; all its noise is drawn on the CPU from it alone, so a picture depends neither on its batch nor
    on the device. sizes: [B, 3], see
    `PixArt.forward`. sampler: see `samplers`. objective: by which the model was trained; None is plain epsilon.

    Guidance (Ho & Salimans 2022) acts on all latent channels: prediction = null + guidance * (conditional - null); 1 is
    no guidance. The variance channels, where the sampler uses them, are those of the condition.
    Raises `UserError` for a sampler that does not fit the objective and the model.
    """
    solver = make_solver(sampler, objective or ObjectiveConfig(), model.config.learn_sigma, steps, text.device)
    noise, generators = _start(seeds, len(text), (model.config.in_channels, height, width))
    if guidance != 1:
        text, text_lengths = _with_null(text, text_lengths, null_text.to(text), null_length)
        sizes = None if sizes is None else sizes.repeat(2, 1)
    return _solve(
        lambda latents, times: model(latents, times, text, text_lengths, sizes),
        solver,
        noise.to(text.device),
        generators,
        guidance,
    )


@torch.no_grad()
def sample_classes(
    model: ClassDenoiser,
    labels: Tensor,
    *,
    height: int,
    width: int,
    seeds: Sequence[int],
    steps: int = DEFAULT_STEPS[DPM],
    guidance: float = 4.5,
    sampler: str = DPM,
    objective: ObjectiveConfig | None = None,
) -> Tensor:
    """`sample` for a class-conditional model and `labels` [B] int64, whose null class is `config.classes`."""
    solver = make_solver(sampler, objective or ObjectiveConfig(), model.config.learn_sigma, steps, labels.device)
    noise, generators = _start(seeds, len(labels), (model.config.in_channels, height, width))
    if guidance != 1:
        labels = torch.cat([torch.full_like(labels, model.config.classes), labels])
    return _solve(
        lambda latents, times: model(latents, times, labels), solver, noise.to(labels.device), generators, guidance
    )


def _solve(
    predict: Callable[[Tensor, Tensor], Tensor],
    solver: Solver,
    latents: Tensor,
    generators: Sequence[torch.Generator],
    guidance: float,
) -> Tensor:
    """From noise [B, C, H, W] to latents. With guidance, `predict` takes the null half first and gives both."""
    channels = latents.shape[1]
    for index, time in enumerate(solver.times):
        inputs = latents if guidance == 1 else latents.repeat(2, 1, 1, 1)
        output = predict(inputs, time.expand(len(inputs))).float()
        if guidance != 1:
            null, conditional = output.chunk(2)
            guided = null[:, :channels] + guidance * (conditional[:, :channels] - null[:, :channels])
            output = torch.cat([guided, conditional[:, channels:]], dim=1)
        latents = solver.step(index, output, latents, generators)
    return latents


def _start(seeds: Sequence[int], batch: int, shape: tuple[int, ...]) -> tuple[Tensor, list[torch.Generator]]:
    """The starting noise [B, *shape] of the seeds, and the generators that go on from there."""
    if len(seeds) != batch:
        raise ValueError(f"{batch} conditions but {len(seeds)} seeds")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators]), generators


def null_condition(model: PixArt, empty: Tensor, lengths: Tensor) -> tuple[Tensor, int | Tensor]:
    """What stands for no text in guidance, as the model was trained: `null_text` and `null_length` of `sample`.

    It is `empty` [L0, D], the embedding of the empty string; or the constant in released weights, which is as long as
    each picture's own text, of `lengths` [B].
    """
    if model.config.null_caption == "buffer":
        return model.y_embedder.y_embedding, lengths
    return empty, len(empty)


def _with_null(text: Tensor, lengths: Tensor, null_text: Tensor, null_length: int | Tensor) -> tuple[Tensor, Tensor]:
    """The null condition once for each text, then the texts, padded to one length: [2B, max(L, L0), D] and [2B]."""
    rows = max(text.shape[1], len(null_text))
    null = F.pad(null_text, (0, 0, 0, rows - len(null_text))).expand(len(text), -1, -1)
    padded = F.pad(text, (0, 0, 0, rows - text.shape[1]))
    null_lengths = null_length if isinstance(null_length, Tensor) else torch.full_like(lengths, null_length)
    return torch.cat([null, padded]), torch.cat([null_lengths.to(lengths), lengths])
