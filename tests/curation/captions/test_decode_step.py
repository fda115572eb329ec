"""The step of our own gives the scores of the library's, whatever text model; where it cannot, that is said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from curation.captions.decode_step import DecodeStep, why_not
from curation.captions.engine import Decoding
from curation.captions.self_check import step_differs
from curation.captions.slot_cache import SlotCache
from curation.captions.transformers_choice import LocalEngine, TransformersChoice
from curation.checkpoints import resolve_checkpoint
from schemas.errors import UserError

SHAPE: dict[str, Any] = {
    "vocab_size": 80,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not 48 / 6
    "max_position_embeddings": 512,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


def llava_of(text: PreTrainedConfig) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=79)).eval()


@pytest.mark.parametrize(
    "text",
    [
        LlamaConfig(**SHAPE),
        LlamaConfig(**{**SHAPE, "num_key_value_heads": 6, "attention_bias": True}),
        LlamaConfig(**SHAPE, rope_parameters=YARN),
        MistralConfig(**SHAPE, sliding_window=None),
        Qwen2Config(**SHAPE),
    ],
    ids=["llama", "llama-one-head-a-key", "llama-yarn", "mistral", "qwen2"],
)
@pytest.mark.parametrize("quick", [True, False])
@torch.no_grad()
def test_steps_of_rows_of_many_lengths_are_those_of_each_row_alone(
    text: PreTrainedConfig, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.captions.decode_step.is_quick", lambda block: quick)
    model = llava_of(text)
    assert why_not(model) is None
    prompts = [torch.randint(0, 79, (1, length)) for length in (3, 70, 11, 1)]
    pasts = [model(input_ids=prompt, use_cache=True).past_key_values for prompt in prompts]
    cache, step = SlotCache(pasts[0], 5, 4), DecodeStep(model)
    for slot, past in zip((0, 1, 3, 4), pasts, strict=True):
        cache.admit([slot], past)
    for _ in range(3):
        tokens = torch.randint(0, 79, (5,)).tolist()
        found = step(tokens, cache)[[0, 1, 3, 4]]
        asked = zip((tokens[slot] for slot in (0, 1, 3, 4)), pasts, strict=True)
        alone = [
            model(input_ids=torch.tensor([[t]]), past_key_values=past, use_cache=True).logits[0] for t, past in asked
        ]
        torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert cache.lengths == [6, 73, 0, 14, 4]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (MistralConfig(**SHAPE, sliding_window=64), "window"),
        (Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=64, max_window_layers=1), "window"),
        (LlamaConfig(**SHAPE, rope_parameters=DYNAMIC), "dynamic"),
    ],
)
def test_a_text_model_that_is_otherwise_is_told_apart(text: PreTrainedConfig, reason: str) -> None:
    told = why_not(llava_of(text))
    assert told is not None
    assert reason in told


def test_a_model_of_another_kind_is_told_apart() -> None:
    model = llava_of(LlamaConfig(**SHAPE))
    model.config.model_type = "qwen2_vl"
    told = why_not(model)
    assert told is not None
    assert "qwen2_vl" in told


def test_scores_that_are_not_the_librarys_are_seen_and_lead_to_whole_batches_that_say_so(
    llava: Path, make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = TransformersChoice(resolve_checkpoint(str(llava), None), dtype="float32", device="cpu", batch_size=2)
    usual = choice.open(Decoding(max_new_tokens=4), "What is it")
    assert isinstance(usual, LocalEngine)
    assert usual.note is None
    assert usual.ahead == 2

    scores: Callable[..., torch.Tensor] = DecodeStep._scores
    monkeypatch.setattr(DecodeStep, "_scores", lambda self, *inputs: 2 * scores(self, *inputs))
    told = step_differs(make_engine(llava, Decoding(max_new_tokens=4)), "What is it")
    assert told is not None
    assert "in step 1" in told
    engine = choice.open(Decoding(max_new_tokens=4), "What is it")
    assert engine.note is not None
    assert engine.note.startswith("in whole batches: in step 1 its scores differ")
    assert engine.ahead == 4


def test_what_cannot_be_stepped_cannot_be_compiled(llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.captions.transformers_choice.why_not", lambda model: "it is odd")
    choice = TransformersChoice(resolve_checkpoint(str(llava), None), "float32", "cpu", 2, compile_steps=True)
    with pytest.raises(UserError, match="cannot be compiled here, since it is odd"):
        choice.open(Decoding(max_new_tokens=4), "What is it")
