"""Second stage: projector and language model learn to tell what is to see; the tower follows at a lower rate."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from curation.captions.prompts import NAMED_PROMPTS, Prompt
from curation.demo.llava.pictures import Drawn
from curation.demo.llava.recolour import Flags, has_plain_ground, recoloured
from curation.demo.llava.tower import batches, normalised, rise_and_fall
from curation.demo.muon import Muon, matrices_and_others
from curation.scenes.alt_text import alt_text
from curation.scenes.scene import scene
from curation.scenes.sentences import PLACES, SIZE_WORDS, describe
from curation.scenes.vocabulary import COLOURS, STYLES, TEXTURE_NOUNS, TEXTURES, WORLD_NOUNS

_TELLING: Final = frozenset(
    re.findall(
        r"[a-z]+",
        " ".join(
            [
                *("above", "below", *WORLD_NOUNS, *COLOURS, *TEXTURES, *TEXTURE_NOUNS.values(), *STYLES),
                *(word for words in SIZE_WORDS.values() for word in words),
                *(phrase.replace("{image}", "") for phrases in PLACES.values() for phrase in phrases),
            ]
        ),
    )
) - {"a", "at", "in", "of", "on", "the"}
_UNTOLD: Final = -100
"""The label of a place that nothing is learnt from."""

_PROMPT: Final = 0  # parts of a row: the prompt, then the answers from 1 on
_NO_PART: Final = -1


@dataclass(frozen=True, slots=True)
class LanguageRecipe:
    """How long and how fast: `steps` of `batch_size` pictures, each told in `tellings` ways at once.

    For the first `frozen` share of the steps the tower stays as it is. Words that only the picture can tell weigh
    `telling_weight` times as much as those that are a matter of phrasing. `with_alt_text` of the batches are asked with
    the web's text beside the picture.
    """

    steps: int = 1000
    batch_size: int = 16
    tellings: int = 2
    rate: float = 2e-3
    matrix_rate: float = 3e-3
    tower_share: float = 0.15  # of these rates, for the tower
    frozen: float = 0.8
    weight_decay: float = 0.05
    telling_weight: float = 4.0
    with_alt_text: float = 0.2
    recoloured: float = 0.3  # of the pictures with a plain ground; what is said of their colours is not learnt
    misread: float = 0.2  # of the words for colours are read as others, so that no noun is guessed from the word before
    snapshot_every: int = 200


def teach_language(
    model: Any,
    processor: Any,
    drawn: Drawn,
    recipe: LanguageRecipe,
    *,
    seed: int,
    say: Callable[[str], None],
    snapshot: Callable[[int], None],
) -> None:
    """Train `model` in place on descriptions, each time in other words; calls `snapshot` with the steps done."""
    tower = model.model.vision_tower
    optimisers = _optimisers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda step: rise_and_fall(step, recipe.steps)) for one in optimisers
    ]
    weights = _word_weights(processor.tokenizer, len(model.get_input_embeddings().weight), recipe.telling_weight)
    asking = Asking(processor)
    random = np.random.Generator(np.random.Philox(key=[seed, recipe.steps]))
    colours = _colour_tokens(processor.tokenizer)
    count, losses = len(drawn.pixels), list[float]()
    model.train()
    for step, rows in enumerate(batches(count, recipe.steps, recipe.batch_size, seed + 1)):
        tower.requires_grad_(step >= recipe.frozen * recipe.steps)
        scenes = [scene(seed, int(row)) for row in rows]
        with_alt = random.random() < recipe.with_alt_text
        alts = [alt_text(one).text if with_alt else None for one in scenes]
        first = recipe.tellings * (step * recipe.batch_size // count)
        texts = [[describe(one, variant=first + k) for k in range(recipe.tellings)] for one in scenes]
        changed = has_plain_ground(drawn.labels[rows]) & (random.random(len(rows)) < recipe.recoloured)
        batch = _misread(asking.batch(alts, texts), changed, recipe.misread, colours, random)
        pixels = normalised(recoloured(drawn.pixels[rows], changed, random))
        loss = _loss(model, batch, pixels, weights)
        for optimiser in optimisers:
            optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        losses.append(loss.item())
        if step % 50 == 49:
            say(f"language {step + 1}/{recipe.steps}: loss {np.mean(losses[-50:]):.4f}")
        if (step + 1) % recipe.snapshot_every == 0:
            snapshot(step + 1)
    model.eval().requires_grad_(True)


def _optimisers(model: Any, recipe: LanguageRecipe) -> list[torch.optim.Optimizer]:
    """Muon and AdamW, each with a group of its own, slower, for the tower."""
    own = matrices_and_others(model.model.language_model, model.model.multi_modal_projector)
    tower = matrices_and_others(model.model.vision_tower)
    muon = Muon(own[0], recipe.matrix_rate, weight_decay=recipe.weight_decay)
    muon.add_param_group({"params": tower[0], "lr": recipe.matrix_rate * recipe.tower_share})
    adam = torch.optim.AdamW(own[1], lr=recipe.rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay)
    adam.add_param_group({"params": tower[1], "lr": recipe.rate * recipe.tower_share})
    return [muon, adam]


@dataclass(frozen=True, slots=True)
class Batch:
    """`ids`, `positions` [B, N]; `seen` [B, 1, N, N], true where a place (row) sees another (column); `labels` [B, M]
    of the last M places."""

    ids: Tensor
    positions: Tensor
    seen: Tensor
    labels: Tensor


class Asking:
    """Puts prompts and answers together as the captioner does, without preparing a picture each time."""

    def __init__(self, processor: Any) -> None:
        self.processor, self._tokenizer = processor, processor.tokenizer
        self._end, self._pad = int(self._tokenizer.eos_token_id), int(self._tokenizer.pad_token_id)
        grid = processor.image_processor.crop_size["height"] // processor.patch_size
        self._pictures = "<image>" * grid**2

    def batch(self, alts: Sequence[str | None], texts: Sequence[Sequence[str]]) -> Batch:
        """A row a picture: its prompt, padded on the left, and behind it several answers, padded on the right.

        An answer sees the prompt and itself, and its positions go on from the prompt's, as if there were no other.
        """
        prompts = self._ids([self._chat(alt or None) for alt in alts], special=True)
        flat = self._ids([f" {text}" for row in texts for text in row], special=False)
        answers = [[*ids, self._end] for ids in flat]
        each = len(texts[0])
        before, after = max(map(len, prompts)), max(map(len, answers))
        shape = (len(prompts), before + each * after)
        ids, labels = torch.full(shape, self._pad), torch.full(shape, _UNTOLD)
        positions, part = torch.zeros(shape, dtype=torch.long), torch.full(shape, _NO_PART)
        for row, prompt in enumerate(prompts):
            start = before - len(prompt)
            ids[row, start:before], part[row, start:before] = torch.tensor(prompt), _PROMPT
            positions[row, start:before] = torch.arange(len(prompt))
            for index in range(each):
                answer, at = answers[row * each + index], before + index * after
                here = slice(at, at + len(answer))
                ids[row, here] = labels[row, here] = torch.tensor(answer)
                part[row, here] = index + 1
                positions[row, here] = len(prompt) + torch.arange(len(answer))
        return Batch(ids, positions, _seen(part), labels[:, before:])

    def _chat(self, alt: str | None) -> str:
        asked = Prompt(NAMED_PROMPTS["laion"]).text(alt, None, {})[0]
        content = [{"type": "image"}, {"type": "text", "text": asked}]
        told = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return str(told).replace("<image>", self._pictures)

    def _ids(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        return list(self._tokenizer(list(texts), add_special_tokens=special)["input_ids"])


def _seen(part: Tensor) -> Tensor:
    """[B, 1, N, N]: a place sees itself, and of what comes before it the prompt and its own part. `part` is [B, N]."""
    own = part[:, :, None] == part[:, None, :]
    seen = (own | (part == _PROMPT)[:, None, :]) & (part != _NO_PART)[:, None, :]
    return (torch.tril(seen) | torch.eye(part.shape[1], dtype=torch.bool))[:, None]


def _loss(model: Any, batch: Batch, pixels: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over the places that have a label, in nats."""
    hidden = model.model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        attention_mask=batch.seen,
        pixel_values=pixels,
        use_cache=False,
    )[0]
    # The first word of each answer but the first is predicted from the prompt's end like that of the first; the place
    # before it belongs to another answer, so it is left out.
    before = hidden.shape[1] - batch.labels.shape[1]
    labels, predicted = batch.labels.clone(), hidden[:, before - 1 : -1]
    starts = (batch.positions[:, before:] == batch.positions[:, before : before + 1]) & (labels != _UNTOLD)
    starts[:, 0] = False
    labels[starts] = _UNTOLD
    told = labels != _UNTOLD
    return functional.cross_entropy(model.lm_head(predicted[told]), labels[told], weights)


def _misread(batch: Batch, changed: Flags, share: float, colours: Tensor, random: np.random.Generator) -> Batch:
    """The batch in which colours in answers are read as others: a `share` of them, all where pictures are changed, and
    there they are not learnt either."""
    before = batch.ids.shape[1] - batch.labels.shape[1]
    is_colour = torch.isin(batch.labels, colours)
    in_changed = torch.from_numpy(changed)[:, None].expand_as(is_colour)
    other = colours[torch.from_numpy(random.integers(len(colours), size=tuple(batch.labels.shape)))]
    exchanged = is_colour & (in_changed | torch.from_numpy(random.random(tuple(batch.labels.shape)) < share))
    ids, labels = batch.ids.clone(), batch.labels.clone()
    ids[:, before:][exchanged] = other[exchanged]
    labels[is_colour & in_changed] = _UNTOLD
    return Batch(ids, batch.positions, batch.seen, labels)


def _colour_tokens(tokenizer: Any) -> Tensor:
    """The token of each colour's word."""
    found = tokenizer([f" {colour}" for colour in COLOURS], add_special_tokens=False)["input_ids"]
    return torch.tensor([ids[0] for ids in found if len(ids) == 1])


def _word_weights(tokenizer: Any, count: int, telling: float) -> Tensor:
    """What each token weighs: `telling` if it is a word that the picture tells, else 1."""
    words = [tokenizer.decode([token]).strip().lower() for token in range(count)]
    return torch.tensor([telling if word in _TELLING else 1.0 for word in words])
