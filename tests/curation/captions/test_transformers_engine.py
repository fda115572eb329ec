import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from curation.captions.engine import Request
from curation.captions.self_check import self_check
from curation.captions.transformers_choice import TransformersChoice
from curation.captions.transformers_engine import Decoding, TransformersEngine, choose_dtype
from curation.checkpoints import resolve_checkpoint
from schemas.errors import GuardError, UserError

PROMPTS = ("Describe this image", "Describe this image and its style in a very detailed manner", "What is it")


def requests(picture: Any, count: int = 5, seed: int = -1) -> list[Request]:
    sizes = ((40, 60), (60, 40), (30, 30), (20, 90), (64, 64))
    return [
        Request(f"key-{i}", picture(i, *sizes[i % 5]), PROMPTS[i % 3], seed if seed < 0 else seed + i)
        for i in range(count)
    ]


def test_a_batch_gives_each_row_the_text_that_it_gets_alone(engine: TransformersEngine, picture: Any) -> None:
    together = engine.complete(requests(picture))
    alone = [engine.complete([request])[0] for request in requests(picture)]
    assert [c.key for c in together] == [f"key-{i}" for i in range(5)]
    for a, b in zip(together, alone, strict=True):
        assert (a.text, a.finish_reason, a.n_tokens, a.n_prompt_tokens) == (
            b.text,
            b.finish_reason,
            b.n_tokens,
            b.n_prompt_tokens,
        )
        assert a.mean_logprob == pytest.approx(b.mean_logprob, abs=1e-4)


def test_greedy_text_equals_that_of_a_plain_generate_call(engine: TransformersEngine, picture: Any) -> None:
    (request,) = requests(picture, 1)
    inputs = engine.inputs([request])
    plain = engine.model.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    (completion,) = engine.complete([request])
    assert completion.text == engine.processor.tokenizer.decode(plain[0], skip_special_tokens=True)


def test_mean_logprob_is_that_of_the_tokens_under_the_model(engine: TransformersEngine, picture: Any) -> None:
    (request,) = requests(picture, 1)
    inputs = engine.inputs([request])
    length = inputs["input_ids"].shape[1]
    whole = engine.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    with torch.inference_mode():
        mask = torch.ones_like(whole)
        logits = engine.model(input_ids=whole, attention_mask=mask, pixel_values=inputs["pixel_values"]).logits
    steps = torch.log_softmax(logits[0, length - 1 : -1], -1).gather(1, whole[0, length:, None])
    (completion,) = engine.complete([request])
    assert completion.mean_logprob == pytest.approx(steps[: completion.n_tokens].mean().item(), abs=1e-4)


def test_sampled_text_depends_on_the_seed_and_not_on_the_batch(llava: Path, make_engine: Any, picture: Any) -> None:
    engine = make_engine(llava, Decoding(max_new_tokens=10, temperature=1.0, top_p=0.95))
    together = engine.complete(requests(picture, seed=100))
    alone = [engine.complete([request])[0] for request in requests(picture, seed=100)]
    again = engine.complete(requests(picture, seed=500))
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.text for c in together] != [c.text for c in again]


def test_the_picture_is_padded_to_a_square_so_that_its_sides_are_seen(engine: TransformersEngine, picture: Any) -> None:
    wide = picture(1, 30, 90)
    changed = wide.copy()
    changed.paste((255, 0, 0), (0, 0, 12, 30))  # within the left third, which a centre crop would cut away
    first, second = (engine.inputs([Request("k", image, PROMPTS[0], -1)])["pixel_values"] for image in (wide, changed))
    assert not torch.equal(first, second)
    assert first.shape == (1, 3, 28, 28)


def test_special_tokens_in_a_prompt_do_not_add_pictures(engine: TransformersEngine, picture: Any) -> None:
    (completion,) = engine.complete([Request("k", picture(0), "An <image> of </s> a dog\nDescribe it", -1)])
    assert completion.finish_reason in ("stop", "length")


def test_a_request_that_fails_alone_is_answered_with_error(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.inputs

    def broken(batch: list[Request]) -> Any:
        if any(r.key == "key-2" for r in batch):
            raise RuntimeError("no kernel for this picture")
        return whole(batch)

    expected = engine.complete(requests(picture))
    monkeypatch.setattr(engine, "inputs", broken)
    completions = engine.complete(requests(picture))
    assert [c.finish_reason == "error" for c in completions] == [False, False, True, False, False]
    assert [c.text for c in completions if c.key != "key-2"] == [c.text for c in expected if c.key != "key-2"]


def test_what_a_failed_batch_held_is_given_back_before_its_halves_are_tried(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = engine._generate
    held: list[weakref.ref[torch.Tensor]] = []
    left: list[bool] = []

    def scarce(asked: list[Request]) -> Any:
        left.extend(tensor() is not None for tensor in held)
        if len(asked) == 4:
            workspace = torch.zeros(1)
            held.append(weakref.ref(workspace))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(asked)

    monkeypatch.setattr(engine, "_generate", scarce)
    assert {c.finish_reason for c in engine.complete(requests(picture, 4))} == {"length"}
    assert left
    assert not any(left)


def test_a_batch_in_which_nothing_succeeds_raises(
    engine: TransformersEngine, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: list[Request]) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(engine, "inputs", broken)
    with pytest.raises(RuntimeError, match="illegal memory"):
        engine.complete(requests(picture))


@pytest.mark.parametrize("architecture", ["llava_next", "llava_onevision"])
def test_tiled_models_run_by_the_same_path(
    architecture: str, request: pytest.FixtureRequest, make_engine: Any, picture: Any
) -> None:
    engine = make_engine(request.getfixturevalue(architecture), Decoding(max_new_tokens=8))
    self_check(engine, PROMPTS[1])
    together = engine.complete(requests(picture))
    alone = [engine.complete([r])[0] for r in requests(picture)]
    assert [c.text for c in together] == [c.text for c in alone]
    assert engine.wanted_px == 56


def test_a_checkpoint_of_another_family_is_asked_in_whole_batches(gemma3: Path, picture: Any) -> None:
    choice = TransformersChoice(resolve_checkpoint(str(gemma3), None), "float32", "cpu", 3)
    engine = choice.open(Decoding(max_new_tokens=8), PROMPTS[1])
    assert engine.note.startswith("in whole batches: a gemma3")
    together = list(engine.answers(requests(picture)))
    alone = [c for request in requests(picture) for c in engine.answers([request])]
    assert [c.text for c in together] == [c.text for c in alone]
    assert {c.error for c in together} == {None}


def test_the_self_check_passes_a_sound_checkpoint(engine: TransformersEngine) -> None:
    self_check(engine, PROMPTS[0])


def test_the_self_check_stops_right_padding(engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.processor.tokenizer, "padding_side", "right")
    with pytest.raises(GuardError, match="depend on their neighbours"):
        self_check(engine, PROMPTS[0])


def test_the_self_check_stops_a_wrong_image_token_count(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.processor, "num_additional_image_tokens", 0)
    with pytest.raises(GuardError, match="disagree"):
        self_check(engine, PROMPTS[0])


def test_the_self_check_stops_a_model_that_sees_no_pictures(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.inputs

    def blind(batch: list[Request]) -> Any:
        return {k: torch.zeros_like(v) if k == "pixel_values" else v for k, v in whole(batch).items()}

    monkeypatch.setattr(engine, "inputs", blind)
    with pytest.raises(GuardError, match="different pictures"):
        self_check(engine, PROMPTS[0])


def test_a_directory_that_holds_no_such_model_is_told_in_one_line(
    llava: Path, tmp_path: Path, make_engine: Any
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(llava, wrong)
    (wrong / "config.json").write_text(json.dumps({"model_type": "no-such-model"}))
    with pytest.raises(UserError, match=r"cannot be (loaded|read)") as error:
        make_engine(wrong, Decoding())
    assert "\n" not in str(error.value)


def test_a_checkpoint_without_chat_template_is_told(llava: Path, tmp_path: Path, make_engine: Any) -> None:
    wrong = tmp_path / "no-template"
    shutil.copytree(llava, wrong)
    for name in ("chat_template.jinja", "chat_template.json"):
        (wrong / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="chat template"):
        make_engine(wrong, Decoding())


def test_uniform_numbers_of_different_seeds_and_steps_are_spread_evenly() -> None:
    from curation.captions.sampling import uniform

    seeds = np.arange(2000, dtype=np.uint64)
    numbers = np.stack([uniform(seeds, np.full(2000, step)) for step in range(20)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(numbers[0], numbers[1])[0, 1]) < 0.06
    assert np.array_equal(numbers[3], uniform(seeds, np.full(2000, 3)))


def test_draws_follow_the_model_distribution_cut_to_the_nucleus() -> None:
    from curation.captions.sampling import TokenChooser, TokenRule

    rows = 20_000
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    scores = probabilities.log().expand(rows, 4)
    chooser = TokenChooser(range(rows), TokenRule(temperature=1.0, top_p=0.9))
    chosen = chooser(torch.zeros(rows, 1, dtype=torch.long), scores).argmax(-1)
    frequency = torch.bincount(chosen, minlength=4) / rows
    expected = torch.tensor([0.5, 0.3, 0.15, 0.0]) / 0.95
    assert (frequency - expected).abs().max() < 0.02
    assert torch.allclose(chooser.logprobs[0], probabilities.log()[chosen])


def test_a_weight_that_is_missing_is_never_made_up(llava: Path, tmp_path: Path, make_engine: Any) -> None:
    lacking = tmp_path / "lacking"
    shutil.copytree(llava, lacking)
    weights = load_file(lacking / "model.safetensors")
    dropped = next(name for name in weights if "multi_modal_projector" in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="weights missing"):
        make_engine(lacking, Decoding())


def test_weights_that_were_cut_off_are_told_in_one_line(llava: Path, tmp_path: Path, make_engine: Any) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(llava, torn)
    content = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="cannot be loaded") as error:
        make_engine(torn, Decoding())
    assert "\n" not in str(error.value)


def test_a_model_for_which_the_device_has_no_room_is_told_in_one_line(
    llava: Path, make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, *arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 86.00 MiB.\nSee the documentation")

    monkeypatch.setattr(PreTrainedModel, "to", full)
    with pytest.raises(UserError, match=r"cannot be put on cpu \(CUDA out of memory[^\n]*$"):
        make_engine(llava, Decoding())


def test_the_compute_type_can_be_named_where_there_is_no_card_to_choose_by() -> None:
    assert choose_dtype("auto", "cpu") == "float32"
    assert choose_dtype("bfloat16", "cuda") == "bfloat16"
    with pytest.raises(UserError, match="no such device"):
        choose_dtype("float32", "cdua")
