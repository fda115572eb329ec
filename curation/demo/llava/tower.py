"""First stage: the vision tower learns what each patch shows, from the truth.

A picture gives one label a patch and question, hundreds in all, where a description gives some twenty words: shapes are
learnt many times faster so. What it learns them by, a linear layer for all questions, is dropped afterwards.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from curation.demo.llava.pictures import IGNORED, QUESTIONS, Bytes, Drawn
from curation.demo.llava.recolour import has_plain_ground, recoloured, without_colours
from curation.demo.muon import Muon, matrices_and_others
from curation.scenes.vocabulary import NOUNS

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class TowerRecipe:
    """How long and how fast. `steps` of `batch_size` pictures; rates rise, then fall along a cosine.

    For the first `sparse` share of the steps the tower sees `patches` of each picture, those that show things first;
    then all, of half as many pictures. Patches of things weigh as much as `ground_weight` would make of the others if
    there were as many: they are few, and what is hard is in them.
    """

    steps: int = 1300
    batch_size: int = 64
    sparse: float = 0.7
    patches: int = 24
    rate: float = 2e-3
    matrix_rate: float = 3e-3
    noun_weight: float = 4.0  # of this question's loss, where the others have 1
    ground_weight: float = 0.3
    recoloured: float = 0.0  # share of the pictures with a plain ground whose colours are exchanged
    weight_decay: float = 0.05


BIASED: Final = TowerRecipe()
"""First it may hold what it likes for a sign of a noun, its colours too: that is the faster way to find shapes."""

UNBIASED: Final = TowerRecipe(steps=260, sparse=0.6, rate=8e-4, matrix_rate=1.2e-3, recoloured=0.6)
"""Then colours are exchanged in many pictures, so that a noun is known in colours that it never has in training."""


def teach_tower(
    tower: Any, drawn: Drawn, recipe: TowerRecipe, *, seed: int, say: Callable[[str], None]
) -> dict[str, float]:
    """Train `tower` in place. Returns the share of right answers by question over the last tenth of the steps, for
    patches that show a thing; of "lower colour" for the others."""
    width = int(tower.config.hidden_size)
    head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(QUESTIONS.values())))
    matrices, others = matrices_and_others(tower, head)
    optimisers = [
        Muon(matrices, recipe.matrix_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: rise_and_fall(step, recipe.steps)) for one in optimisers
    ]
    random, exchanging = (np.random.Generator(np.random.Philox(key=[seed, stream])) for stream in (1, 2))
    right = np.zeros((recipe.steps, len(QUESTIONS)))
    tower.train()
    for step, rows in enumerate(batches(len(drawn.pixels), recipe.steps, recipe.batch_size, seed)):
        if step < recipe.sparse * recipe.steps:
            seen = _things_first(drawn.labels[rows, 0], recipe.patches, random)
        else:
            rows = rows[: max(1, len(rows) // 2)]
            seen = np.tile(np.arange(drawn.labels.shape[-1]), (len(rows), 1))
        pixels, labels, changed = drawn.pixels[rows], drawn.labels[rows], has_plain_ground(drawn.labels[rows])
        changed &= exchanging.random(len(rows)) < recipe.recoloured
        pixels, labels = recoloured(pixels, changed, exchanging), without_colours(labels, changed)
        answers = head(_hidden(tower, normalised(pixels), torch.from_numpy(seen))).split([*QUESTIONS.values()], dim=-1)
        truth = torch.from_numpy(np.take_along_axis(labels, seen[:, None], -1).astype(np.int64)).unbind(1)
        for optimiser in optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(_loss(answers, truth, recipe))
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        right[step] = _shares_right(answers, truth)
        if step % 50 == 49:
            shares = dict(zip(QUESTIONS, right[step - 49 : step + 1].mean(0), strict=True))
            say(f"tower {step + 1}/{recipe.steps}: " + ", ".join(f"{name} {at:.3f}" for name, at in shares.items()))
    return dict(zip(QUESTIONS, right[-max(1, recipe.steps // 10) :].mean(0).tolist(), strict=True))


def batches(count: int, steps: int, batch_size: int, seed: int) -> list[Any]:
    """Rows of each step's batch: all rows in a new order, and again."""
    random = np.random.Generator(np.random.Philox(key=[seed, count]))
    needed = steps * batch_size
    orders = [random.permutation(count) for _ in range(math.ceil(needed / count))]
    return [np.sort(rows) for rows in np.concatenate(orders)[:needed].reshape(steps, batch_size)]


def rise_and_fall(step: int, steps: int, *, rise: float = 0.03, floor: float = 0.01) -> float:
    """The share of the full rate: linear up over the first `rise` of the steps, then a cosine down to `floor`."""
    done = (step + 1) / steps
    if done < rise:
        return done / rise
    return floor + (1 - floor) * (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


def normalised(pixels: Bytes) -> Tensor:
    """[B, H, W, 3] bytes as the [B, 3, H, W] that CLIP's image processor gives."""
    scaled = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255
    return (scaled - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]


def _things_first(nouns: Bytes, count: int, random: np.random.Generator) -> Any:
    """[B, count] patches in order: those that show things, then edges of things, then others, each at random."""
    rank = random.random(nouns.shape) + 2.0 * (nouns < len(NOUNS)) + 0.5 * (nouns == IGNORED)
    return np.sort(np.argsort(-rank, axis=1)[:, :count], axis=1)


def _hidden(tower: Any, pixels: Tensor, seen: Tensor) -> Tensor:
    """What the tower makes of the patches `seen` [B, K], as if there were no others: [B, K, width]."""
    embedded = tower.embeddings(pixels)
    at = torch.cat([torch.zeros_like(seen[:, :1]), seen + 1], dim=1)  # the class token comes first
    kept = embedded.gather(1, at[..., None].expand(-1, -1, embedded.shape[-1]))
    return tower.encoder(inputs_embeds=tower.pre_layrnorm(kept)).last_hidden_state[:, 1:]


def _loss(answers: Sequence[Tensor], truth: Sequence[Tensor], recipe: TowerRecipe) -> Tensor:
    """Cross-entropy over the questions, for patches of things and others apart; "noun" is the first question."""
    is_thing = truth[0] < len(NOUNS)
    total = torch.zeros(())
    for index, (answer, true) in enumerate(zip(answers, truth, strict=True)):
        for patches, weight in ((is_thing, 1.0), (~is_thing, recipe.ground_weight)):
            asked = patches & (true != IGNORED)
            if bool(asked.any()):
                loss = functional.cross_entropy(answer[asked], true[asked])
                total = total + weight * (recipe.noun_weight if index == 0 else 1.0) * loss
    return total / len(truth)


@torch.no_grad()
def _shares_right(answers: Sequence[Tensor], truth: Sequence[Tensor]) -> list[float]:
    is_thing = truth[0] < len(NOUNS)
    asked = [true != IGNORED for true in truth]
    asked = [at & is_thing if bool((at & is_thing).any()) else at for at in asked]
    return [
        float((answer.argmax(-1) == true)[at].float().mean())
        for answer, true, at in zip(answers, truth, asked, strict=True)
    ]
