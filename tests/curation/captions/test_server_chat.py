from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.captions.engine import Decoding
from curation.captions.server_chat import Chat, plain
from curation.captions.server_http import TroubleError

CHAT = Chat("llava", Decoding(64, 0.2, 0.9))
OURS = "lm-" + "a" * 32


def answer(**changes: Any) -> dict[str, Any]:
    choice = {"message": {"content": "A dog."}, "finish_reason": "stop", **changes.pop("choice", {})}
    usage = {"prompt_tokens": 620, "completion_tokens": 4}
    return {"id": f"chatcmpl-{OURS}", "choices": [choice], "usage": usage, **changes}


def test_a_request_has_one_picture_before_its_prompt() -> None:
    body = CHAT.body("data:x", "Describe it", -1)
    (message,) = body["messages"]
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:x"}},
        {"type": "text", "text": "Describe it"},
    ]
    assert "seed" not in body
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"]) == ("llava", 64, 0.2, 0.9)


@given(st.integers(0, 2**63 - 1))
def test_every_seed_is_sent_as_31_bits(seed: int) -> None:
    assert CHAT.body("data:x", "p", seed)["seed"] == seed & 0x7FFFFFFF


def test_special_tokens_in_a_prompt_do_not_reach_the_chat_template() -> None:
    prompt = "an <image> of </s> a <|im_start|>dog<|im_end|> [INST] 3 < 4 and |x| <b>\nDescribe it"
    assert plain(prompt) == "an   of   a  dog    3 < 4 and |x| <b>\nDescribe it"
    assert CHAT.body("data:x", prompt, -1)["messages"][0]["content"][1]["text"] == plain(prompt)


def test_an_answer_is_read_with_its_counts_and_logprobs() -> None:
    logprobs = {"content": [{"logprob": -1.0}, {"logprob": -3.0}]}
    completion = CHAT.completion("k", OURS, answer(choice={"logprobs": logprobs, "finish_reason": "length"}))
    assert (completion.key, completion.text, completion.finish_reason) == ("k", "A dog.", "length")
    assert (completion.n_prompt_tokens, completion.n_tokens, completion.mean_logprob) == (620, 4, -2.0)


def test_an_answer_without_counts_and_logprobs_is_read_too() -> None:
    completion = CHAT.completion("k", OURS, {"choices": answer()["choices"]})
    assert (completion.n_prompt_tokens, completion.n_tokens, completion.mean_logprob) == (0, 0, None)
    assert CHAT.completion("k", OURS, answer(choice={"message": {"content": None}})).text == ""


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "no chat completion"),
        ([], "no chat completion"),
        ({"choices": []}, "no chat completion"),
        ({"choices": [{"message": {}}]}, "no chat completion"),
        (answer(choice={"message": {"content": ["x"]}}), "no text"),
        (answer(choice={"finish_reason": None}), "ended by None"),
        (answer(choice={"finish_reason": "abort"}), "ended by 'abort'"),
        (answer(usage={"prompt_tokens": "many"}), "no chat completion"),
        (answer(id="chatcmpl-lm-" + "b" * 32), "misrouted"),
    ],
)
def test_an_answer_that_is_none_of_this_request_is_trouble(wrong: Any, says: str) -> None:
    with pytest.raises(TroubleError, match=says):
        CHAT.completion("k", OURS, wrong)


def test_an_id_that_the_server_made_up_is_no_trouble() -> None:
    assert CHAT.completion("k", OURS, answer(id="chatcmpl-42")).text == "A dog."
