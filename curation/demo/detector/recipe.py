"""Train the detector: it starts with the vision tower of the small LLaVA and learns to answer for each place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForImageTextToText

from curation.demo.detector.model import NOTHING, Answers, SceneReader, save_reader
from curation.demo.detector.pictures import IGNORED, Targets, training_batch
from curation.demo.llava.tower import CLIP_MEAN, CLIP_STD, rise_and_fall
from curation.demo.muon import Muon, matrices_and_others
from curation.demo.shipped import LLAVA, VAE

_WEIGHTS: Final = {"noun": 4.0, "colour": 1.0, "size": 0.5, "ground": 0.5, "upper": 0.5, "lower": 0.5}
_FILLED: Final = 0.5  # weight of places with something in them; the others have the rest


@dataclass(frozen=True, slots=True)
class DetectorRecipe:
    """`steps` of `batch` pictures; rates rise, then fall along a cosine."""

    steps: int = 700
    batch: int = 32
    rate: float = 1.5e-3  # of AdamW, for what is new, embeddings and vectors
    matrix_rate: float = 1.5e-3  # of Muon, for the tower's matrices
    weight_decay: float = 0.05
    seed: int = 1


def train_detector(directory: Path, recipe: DetectorRecipe, say: Callable[[str], None], *, say_every: int = 25) -> None:
    """Train and save at `directory`."""
    torch.manual_seed(recipe.seed)
    tower: Any = AutoModelForImageTextToText.from_pretrained(LLAVA, dtype=torch.float32).model.vision_tower
    autoencoder: Any = AutoencoderKL.from_pretrained(VAE).eval()
    reader = SceneReader(_settings(tower.config))
    reader.tower.load_state_dict(tower.state_dict())
    matrices, others = matrices_and_others(reader)
    optimisers: list[torch.optim.Optimizer] = [
        Muon(matrices, recipe.matrix_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: rise_and_fall(step, recipe.steps)) for one in optimisers
    ]
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    right = torch.zeros(3)
    for step in range(recipe.steps):
        numbers = range(step * recipe.batch, (step + 1) * recipe.batch)
        pixels, targets = training_batch(numbers, recipe.seed, reader.tower.config.image_size, autoencoder)
        answers = reader((pixels - mean) / deviation)
        for optimiser in optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(_loss(answers, targets))
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        right += _shares_right(answers, targets)
        if (step + 1) % say_every == 0:
            noun, empty, colour = (right / say_every).tolist()
            say(f"step {step + 1} of {recipe.steps}: things {noun:.3f}, empty places {empty:.3f}, colours {colour:.3f}")
            right.zero_()
    save_reader(reader, directory)


def _settings(config: Any) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    return {name: getattr(config, name) for name in names}


def _loss(answers: Answers, targets: Targets) -> Tensor:
    """Cross-entropies, weighted; those of full places and of empty ones are averaged apart, as most are empty."""
    total = torch.zeros(())
    for name, weight in _WEIGHTS.items():
        answer, target = getattr(answers, name).flatten(0, -2), getattr(targets, name).flatten()
        losses = functional.cross_entropy(answer, target, ignore_index=IGNORED, reduction="none")
        if name == "noun":
            filled = target != NOTHING
            loss = _FILLED * losses[filled].mean() + (1 - _FILLED) * losses[~filled].mean()
        else:
            loss = losses.sum() / (target != IGNORED).sum().clamp(min=1)
        total = total + weight * loss
    return total


@torch.no_grad()
def _shares_right(answers: Answers, targets: Targets) -> Tensor:
    """Of full places, of empty ones, and of colours of things."""
    filled = targets.noun != NOTHING
    noun, colour = (answers.noun.argmax(-1) == targets.noun).float(), answers.colour.argmax(-1) == targets.colour
    return torch.stack([noun[filled].mean(), noun[~filled].mean(), colour[filled].float().mean()])
