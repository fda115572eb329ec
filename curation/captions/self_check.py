"""Before the first picture of a job: does this checkpoint, with this processor, see pictures and keep rows apart?

Each check stands for a fault that captions do not show at a glance: image tokens that do not match the features,
pictures that never reach the model, and rows whose text depends on their batch because of right padding.
"""

from typing import Final

import numpy as np
import torch
from PIL import Image

from curation.captions.decode_step import DecodeStep
from curation.captions.engine import Request
from curation.captions.slot_cache import SlotCache
from curation.captions.transformers_engine import TransformersEngine
from schemas.errors import GuardError

_TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest total variation between the next-token distributions of a row alone and in its batch. Half precision
rounds otherwise in other batch shapes; wrong padding moves the distributions by far more."""
_CHECKED_STEPS: Final = 2
"""The second one looks at what the first one wrote."""


def self_check(engine: TransformersEngine, prompt: str) -> None:
    """Raise `GuardError` unless the engine passes. Takes a few forward passes."""
    requests = made_up_requests(prompt)
    _check_pictures_differ(engine, requests)
    _check_batch_equals_single(engine, requests)


@torch.inference_mode()
def step_differs(engine: TransformersEngine, prompt: str) -> str | None:
    """How `DecodeStep`, over rows of two lengths, departs from the library's own steps, as the end of a sentence.

    None where it gives the same distributions as each row alone. `why_not` must have had nothing to say.
    """
    pasts, scores = [], []
    for request in made_up_requests(prompt):
        output = engine.model(**engine.to_device(engine.prepare(request)), use_cache=True, logits_to_keep=1)
        pasts.append(output.past_key_values)
        scores.append(output.logits[:, -1])
    cache = SlotCache(pasts[0], len(pasts), _CHECKED_STEPS)
    for slot, past in enumerate(pasts):
        cache.admit([slot], past)
    step, expected = DecodeStep(engine.model), torch.cat(scores)
    for number in range(_CHECKED_STEPS):
        tokens = expected.argmax(-1)
        found = step(tokens.tolist(), cache)
        expected = torch.cat(
            [
                engine.model(input_ids=token.view(1, 1), past_key_values=past, use_cache=True).logits[:, -1]
                for token, past in zip(tokens, pasts, strict=True)
            ]
        )
        distance = _total_variation(found, expected)
        if not distance <= _TOLERANCE[engine.model.dtype]:
            return f"in step {number + 1} its scores differ from the library's by {distance:.3f} (total variation)"
    return None


def made_up_requests(prompt: str) -> list[Request]:
    """Four requests of two lengths for pictures of noise, no two alike."""
    longer = prompt + " and then say where it could have been taken, and at which time of the day"
    return [
        Request(f"self-check-{i}", _picture(i, height, width), text, seed=-1)
        for i, (height, width, text) in enumerate(
            ((120, 90, prompt), (90, 160, longer), (100, 100, prompt), (64, 200, longer))
        )
    ]


def _picture(number: int, height: int, width: int) -> Image.Image:
    """A picture that no other number gives: coarse coloured noise."""
    cells = np.random.Generator(np.random.Philox(number)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.NEAREST)


def _check_pictures_differ(engine: TransformersEngine, requests: list[Request]) -> None:
    first, second = (engine.inputs([r])["pixel_values"] for r in (requests[0], requests[2]))
    if first.shape == second.shape and torch.equal(first, second):
        raise GuardError(
            "self-check: two different pictures give the model the same pixels. The checkpoint's processor ignores "
            "its images; check preprocessor_config.json."
        )


@torch.inference_mode()
def _check_batch_equals_single(engine: TransformersEngine, requests: list[Request]) -> None:
    try:
        together = _next_scores(engine, requests)
        alone = torch.cat([_next_scores(engine, [r]) for r in requests])
    except ValueError as error:
        first = str(error).strip().splitlines()[0][:160]
        raise GuardError(
            f"self-check: the checkpoint and its processor disagree ({first}). Check patch_size, "
            f"vision_feature_select_strategy and num_additional_image_tokens in processor_config.json."
        ) from error
    if not torch.isfinite(together).all():
        raise GuardError("self-check: the model gives NaN or infinite scores. Try --dtype float32 or bfloat16.")
    distance = _total_variation(together, alone)
    if distance > _TOLERANCE[engine.model.dtype]:
        raise GuardError(
            f"self-check: a row's next-token distribution differs by {distance:.3f} (total variation) between its "
            f"batch and alone, so captions would depend on their neighbours. Right padding, or no mask?"
        )
    blank = [Request(r.key, Image.new("RGB", r.image.size), r.prompt, r.seed) for r in requests]
    if torch.equal(_next_scores(engine, blank), together):
        raise GuardError("self-check: black pictures give the same scores as real ones, so the model sees no picture.")


def _next_scores(engine: TransformersEngine, requests: list[Request]) -> torch.Tensor:
    """[B, V] scores of the first generated token."""
    return engine.model(**engine.inputs(requests)).logits[:, -1]


def _total_variation(scores: torch.Tensor, others: torch.Tensor) -> float:
    """The largest over rows of [B, V] scores, as distributions of the next token."""
    first, second = (torch.softmax(each.double(), dim=-1) for each in (scores, others))
    return (first - second).abs().sum(-1).max().item() / 2
