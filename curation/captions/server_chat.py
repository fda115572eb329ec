"""Chat requests of OpenAI's API as vLLM, SGLang and `transformers serve` take them, and what their answers mean."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from curation.captions.engine import Completion, Decoding, FinishReason
from curation.captions.server_http import TroubleError

PATH: Final = "/v1/chat/completions"
_ENDS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
}
_SPECIAL: Final = re.compile(r"<\|[^|<>\s]*\|>|</?s>|<(?:image|video|audio|img|pad|unk)>|\[/?INST\]")
_SEEDS: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Chat:
    """How a server is asked. `logprobs`: whether it is asked for the tokens' log-probabilities."""

    model: str
    decoding: Decoding
    logprobs: bool = True

    def body(self, picture_url: str | None, prompt: str, seed: int) -> dict[str, Any]:
        """The request for one picture.

        Special tokens in the prompt become blanks: alt text that says `<image>` must not add a picture. The server is
        given the seed's low 31 bits, which every server takes.
        """
        picture = [] if picture_url is None else [{"type": "image_url", "image_url": {"url": picture_url}}]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": [*picture, {"type": "text", "text": plain(prompt)}]}],
            "max_tokens": self.decoding.max_new_tokens,
            "temperature": self.decoding.temperature,
            "top_p": self.decoding.top_p,
        }
        if seed >= 0:
            body["seed"] = seed % _SEEDS
        if self.logprobs:
            body["logprobs"] = True
        return body

    def completion(self, key: str, request_id: str, answer: Any) -> Completion:
        """What `answer` says. Raises `TroubleError` if it is no chat completion, or one of another request."""
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] or ""
            reason = choice["finish_reason"]
            usage = answer.get("usage") or {}
            n_prompt, n_tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
            said = str(answer.get("id", ""))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise TroubleError(f"the answer is no chat completion ({type(error).__name__}: {error})") from None
        if not isinstance(text, str):
            raise TroubleError("the answer's content is no text")
        check_id(request_id, said)
        if reason not in _ENDS:
            raise TroubleError(f"the answer ended by {reason!r}")
        return Completion(key, text, _ENDS[reason], n_prompt, n_tokens, _mean_logprob(choice))


def check_id(request_id: str, said: str) -> None:
    """Raise `TroubleError` if the answer's id is that of another request of ours.

    vLLM and `transformers serve` build it from the X-Request-Id that they were sent; servers that make up their own
    prove nothing here, and are held to the rule that a connection carries one request.
    """
    found = re.search(r"lm-[0-9a-f]{32}", said)
    if found and found.group() != request_id:
        raise TroubleError(f"misrouted: the answer is that of request {found.group()}")


def plain(prompt: str) -> str:
    """`prompt` without what a chat template or a processor would take for a token of its own."""
    return _SPECIAL.sub(" ", prompt)


def _mean_logprob(choice: Mapping[str, Any]) -> float | None:
    try:
        values = [float(token["logprob"]) for token in choice["logprobs"]["content"]]
    except (LookupError, TypeError, ValueError):  # most servers give none
        return None
    return sum(values) / len(values) if values else None
