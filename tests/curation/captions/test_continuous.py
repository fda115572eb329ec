"""Rows that come and go give each request the text that it gets alone, whatever happens around it."""

import copy
import itertools
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from curation.captions import slot_cache
from curation.captions.continuous import ContinuousBatches
from curation.captions.decode_step import DecodeStep, why_not
from curation.captions.engine import Completion, Decoding, Request
from curation.captions.sampling import Integers, TokenRule
from curation.captions.slot_cache import SlotCache
from curation.captions.transformers_engine import TransformersEngine

MOST = 20
LENGTHS = (3, 20, 1, 7, 40, 5, 2, 13, 20, 4, 9)
PROMPTS = ("Describe this image", "Describe this image and its style in a very detailed manner", "What is it")
SIZES = ((40, 60), (60, 40), (30, 30), (20, 90), (64, 64))


@dataclass(frozen=True, slots=True)
class EndingRule(TokenRule):
    """Ends the row of seed s after LENGTHS[s % 11] tokens: untrained models never end by themselves."""

    end: int = 0

    def choose(self, scores: Tensor, seeds: Integers, steps: Integers) -> tuple[Tensor, Tensor]:
        chosen, logprobs = TokenRule.choose(self, scores, seeds, steps)
        last = torch.tensor([step + 1 == LENGTHS[seed % 11] for seed, step in zip(seeds, steps, strict=True)])
        return torch.where(last, self.end, chosen), logprobs


def ending(engine: TransformersEngine, temperature: float = 0.0) -> TransformersEngine:
    engine.rule = EndingRule(temperature, 0.95, min(engine.end_tokens))
    return engine


@pytest.fixture(scope="module")
def engine(llava: Path, make_engine: Any) -> TransformersEngine:
    return ending(make_engine(llava, Decoding(max_new_tokens=MOST)))


def requests(picture: Any, count: int) -> list[Request]:
    return [Request(f"key-{i}", picture(i, *SIZES[i % 5]), PROMPTS[i % 3], i) for i in range(count)]


def _twice(past: Any) -> Any:
    past = copy.deepcopy(past)
    past.batch_repeat_interleave(2)
    return past


def assert_same(found: list[Completion], expected: list[Completion]) -> None:
    without = [replace(c, mean_logprob=None) for c in found]
    assert without == [replace(c, mean_logprob=None) for c in expected]
    assert [c.mean_logprob for c in found] == pytest.approx([c.mean_logprob for c in expected], abs=1e-4)


@pytest.mark.parametrize("slots", [1, 2, 5, 8, 40])
def test_each_request_gets_the_text_that_it_gets_alone(engine: TransformersEngine, picture: Any, slots: int) -> None:
    asked = requests(picture, 23)
    alone = [engine.complete([request])[0] for request in asked]
    assert {c.n_tokens for c in alone} == {1, 2, 3, 4, 5, 7, 9, 13, 20}
    assert {c.finish_reason for c in alone} == {"stop", "length"}
    assert_same(list(ContinuousBatches(engine, slots).answers(asked)), alone)


@pytest.mark.parametrize("architecture", ["llava_next", "llava_onevision"])
def test_tiled_models_too(architecture: str, request: pytest.FixtureRequest, make_engine: Any, picture: Any) -> None:
    engine = ending(make_engine(request.getfixturevalue(architecture), Decoding(max_new_tokens=MOST)))
    asked = requests(picture, 9)
    assert why_not(engine.model) is None
    assert_same(list(ContinuousBatches(engine, 3).answers(asked)), [engine.complete([r])[0] for r in asked])


def test_sampled_text_depends_on_the_seed_and_not_on_the_slots(llava: Path, make_engine: Any, picture: Any) -> None:
    engine = ending(make_engine(llava, Decoding(max_new_tokens=MOST, temperature=1.0, top_p=0.95)), temperature=1.0)
    asked = requests(picture, 11)
    assert_same(list(ContinuousBatches(engine, 4).answers(asked)), [engine.complete([r])[0] for r in asked])


def test_columns_that_run_out_become_more_and_the_text_stays(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(picture, 23)
    alone = [engine.complete([request])[0] for request in asked]
    grown: list[int] = []
    grow, begin = SlotCache._grow, SlotCache.__init__

    def counted(self: SlotCache, columns: int) -> None:
        grown.append(columns - self.columns)
        grow(self, columns)

    def cramped(self: SlotCache, first: Any, slots: int, room: int) -> None:
        begin(self, first, slots, 2)

    monkeypatch.setattr(slot_cache, "_ROUND_TO", 1)
    monkeypatch.setattr(SlotCache, "_grow", counted)
    monkeypatch.setattr(SlotCache, "__init__", cramped)
    assert_same(list(ContinuousBatches(engine, 1).answers(asked)), alone)
    assert 1 in grown, "for a row's next token"
    assert max(grown) > 1, "for a longer prompt"


def test_a_row_of_nan_leaves_nothing_behind_in_its_slot(engine: TransformersEngine) -> None:
    with torch.inference_mode():
        text = engine.model.model.language_model
        past = text(input_ids=torch.tensor([[5, 6, 7]]), use_cache=True).past_key_values
        longer = text(input_ids=torch.tensor([[5, 6, 7, 8, 9, 10]]), use_cache=True).past_key_values
        step, clean, used = DecodeStep(engine.model), SlotCache(past, 2, 8), SlotCache(past, 2, 8)
        for layer in longer.layers:
            layer.keys.fill_(torch.nan)
            layer.values.fill_(torch.nan)
        used.admit([0], longer)
        used.free(0)
        for cache in (clean, used):
            cache.admit([0, 1], _twice(past))
            cache.free(1)
        assert torch.equal(step([5, 0], used)[0], step([5, 0], clean)[0])


def test_a_compiled_step_gives_the_same_text_and_is_compiled_once(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.testing import CompileCounter

    asked = [replace(r, prompt=PROMPTS[0]) for r in requests(picture, 13)]
    alone = [engine.complete([request])[0] for request in asked]
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = ContinuousBatches(engine, 4, compile_backend=counter)
    assert_same(list(compiled.answers(asked[:6])), alone[:6])
    graphs = counter.frame_count
    assert graphs > 0
    assert_same(list(compiled.answers(asked[6:])), alone[6:])
    assert counter.frame_count == graphs, "another unit compiles nothing again"


def test_requests_are_taken_only_a_little_ahead_of_the_answers(engine: TransformersEngine, picture: Any) -> None:
    taken: list[str] = []

    def source() -> Iterator[Request]:
        for request in requests(picture, 40):
            taken.append(request.key)
            yield request

    answers = ContinuousBatches(engine, 4).answers(source())
    first = next(answers)
    assert first.key == "key-0"
    assert len(taken) <= 4 * 4
    answers.close()


def test_a_request_that_fails_alone_is_answered_with_error(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(picture, 8)
    alone = [engine.complete([request])[0] for request in asked]
    prepare, forward = engine.prepare, engine.model.forward
    poison = prepare(asked[5])["pixel_values"]

    def unprepared(request: Request) -> dict[str, Tensor]:
        if request.key == "key-2":
            raise ValueError("a picture that no processor takes")
        return prepare(request)

    def poisoned(**inputs: Any) -> Any:
        pixels = inputs.get("pixel_values")
        if pixels is not None and any(torch.equal(each, poison[0]) for each in pixels):
            raise RuntimeError("no kernel for this picture")
        return forward(**inputs)

    monkeypatch.setattr(engine, "prepare", unprepared)
    monkeypatch.setattr(engine.model, "forward", poisoned)
    found = list(ContinuousBatches(engine, 3).answers(asked))
    assert [c.key for c in found] == [r.key for r in asked]
    assert [c.error for c in found if c.finish_reason == "error"] == [
        "ValueError: a picture that no processor takes",
        "RuntimeError: no kernel for this picture",
    ]
    assert_same([c for c in found if c.error is None], [c for c in alone if c.key not in {"key-2", "key-5"}])


def test_where_nothing_can_be_answered_the_fault_is_raised(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**inputs: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine.model, "forward", broken)
    with pytest.raises(RuntimeError, match="illegal memory"):
        list(ContinuousBatches(engine, 4).answers(requests(picture, 6)))


def test_a_step_for_which_memory_is_lacking_loses_no_row(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = requests(picture, 12)
    alone = [engine.complete([request])[0] for request in asked]
    step = DecodeStep.__call__

    def scarce(self: DecodeStep, tokens: list[int], cache: SlotCache) -> Tensor:
        if len(tokens) == 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, tokens, cache)

    monkeypatch.setattr(DecodeStep, "__call__", scarce)
    assert_same(list(ContinuousBatches(engine, 8).answers(asked)), alone)


def test_what_a_failed_step_held_is_given_back_before_its_rows_are_asked_again(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, complete = DecodeStep._scores, engine.complete
    blocks: list[weakref.ref[Tensor]] = []
    left: list[bool] = []

    def scarce(self: DecodeStep, tokens: Tensor, positions: Tensor, keys: list[Tensor], *rest: Any) -> Tensor:
        if len(tokens) == 8:
            blocks.extend(weakref.ref(block) for block in keys)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, tokens, positions, keys, *rest)

    def watched(asked: list[Request]) -> Any:
        left.extend(block() is not None for block in blocks)
        return complete(asked)

    monkeypatch.setattr(DecodeStep, "_scores", scarce)
    monkeypatch.setattr(engine, "complete", watched)
    assert len(list(ContinuousBatches(engine, 8).answers(requests(picture, 8)))) == 8
    assert left
    assert not any(left)


@pytest.mark.parametrize("lacking", ["__init__", "admit"])
def test_rows_for_whose_columns_memory_is_lacking_are_not_lost(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    asked = requests(picture, 25)
    alone = [engine.complete([request])[0] for request in asked]
    original, calls = getattr(SlotCache, lacking), itertools.count()

    def scarce(self: SlotCache, *arguments: Any) -> None:
        if next(calls) in {0, 3, 4}:
            raise torch.OutOfMemoryError("CUDA out of memory")
        original(self, *arguments)

    monkeypatch.setattr(SlotCache, lacking, scarce)
    assert_same(list(ContinuousBatches(engine, 8).answers(asked)), alone)
    assert next(calls) > 1


def test_last_rows_that_end_with_their_first_token_are_answered(engine: TransformersEngine, picture: Any) -> None:
    asked = [replace(request, seed=2) for request in requests(picture, 3)]
    assert [c.n_tokens for c in ContinuousBatches(engine, 8).answers(asked)] == [1, 1, 1]


def test_no_request_is_no_answer(engine: TransformersEngine) -> None:
    assert list(ContinuousBatches(engine, 4).answers([])) == []


def test_numbers_are_the_rows_own_whatever_step_the_others_are_at() -> None:
    rule, scores = TokenRule(1.0, 0.9), torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    seeds, steps = np.arange(5), np.array([3, 0, 7, 7, 1])
    together, _ = rule.choose(scores, seeds, steps)
    alone = [rule.choose(scores[i : i + 1], seeds[i : i + 1], steps[i : i + 1])[0].item() for i in range(5)]
    assert together.tolist() == alone
