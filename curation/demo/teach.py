"""Teach the small LLaVA to say plain sentences about generated pictures, so that a demonstration has text to work on.

It learns the form of a description and some of its content; what it says of photographs
is grammatical and wrong. Nothing of this is a special case in the pipeline: the result is a checkpoint like any other.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from curation.captions.prompts import NAMED_PROMPTS
from curation.images.resize import pad_to_square
from curation.scenes.drawing import draw
from curation.scenes.scene import Scene, scene

_GREY = (122, 116, 104)  # the mean of CLIP's pictures, as the captioner pads
_FIRST_SCENE = 1_000_000


def teach_llava(directory: Path, *, steps: int, seed: int = 0, batch_size: int = 16) -> float:
    """Train the checkpoint at `directory` in place on scenes that no shard holds; the last step's loss (nats)."""
    processor: Any = AutoProcessor.from_pretrained(directory)
    model: Any = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    processor.tokenizer.padding_side = "right"  # for training; the captioner pads left
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    model.train()
    loss = torch.tensor(float("nan"))
    for step in range(steps):
        scenes = [scene(seed, _FIRST_SCENE + step * batch_size + i) for i in range(batch_size)]
        batch, labels = _batch(processor, scenes)
        loss = model(**batch, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval().save_pretrained(directory)
    return float(loss.detach())


def plainly(scene: Scene) -> str:
    """The scene in few forms of words, as seconds of teaching can convey; `describe` tells it in many."""
    first = scene.things[0]
    text = f"A {first.size} {first.colour} {first.noun} stands on the {first.column} of a {scene.ground.kind} ground."
    for thing in scene.things[1:]:
        text += f" On the {thing.column} there is a {thing.size} {thing.colour} {thing.noun}."
    return f"{text} The style of the picture is {scene.style} and simple, with clean edges."


def _batch(processor: Any, scenes: list[Scene]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Inputs [B, N] and labels [B, N], -100 wherever nothing is to be learnt (prompt, padding)."""
    prompt = _prompt(processor)
    images = [pad_to_square(draw(one), _GREY) for one in scenes]
    end = processor.tokenizer.eos_token
    texts = [f"{prompt} {plainly(one)}{end}" for one in scenes]
    batch = processor(images=images, text=texts, padding=True, return_tensors="pt")
    length = processor(images=images[:1], text=[prompt], return_tensors="pt")["input_ids"].shape[1]
    labels = batch["input_ids"].clone()
    labels[:, :length] = -100
    labels[batch["attention_mask"] == 0] = -100
    return dict(batch), labels


def _prompt(processor: Any) -> str:
    content = [{"type": "image"}, {"type": "text", "text": NAMED_PROMPTS["sam"]}]
    return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
