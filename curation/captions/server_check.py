"""Before the first picture of a job: does this server serve this model, see pictures, and keep requests apart?

Each check stands for a fault that captions do not show at a glance.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from PIL import Image

from curation.captions.engine import Completion, Request
from curation.captions.server_http import Address, OpenLines, RefusedError, TroubleError

_LIST_SECONDS: Final = 30.0
_SEEDS: Final = (1, 2, 3)

Ask = Callable[[Request, float], Completion]
"""Asks one server for a short text at a temperature."""


def made_up_requests(prompt: str) -> list[Request]:
    """Four pictures that look nothing like each other, each with `prompt`."""
    noise = np.random.Generator(np.random.Philox(0)).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    pictures = (
        Image.new("RGB", (96, 96), (200, 20, 20)),
        Image.fromarray(noise).resize((128, 96), Image.Resampling.NEAREST),
        Image.linear_gradient("L").resize((80, 120)).convert("RGB"),
        Image.fromarray(noise[::-1, ::-1, ::-1].copy()).resize((200, 64), Image.Resampling.BICUBIC),
    )
    return [Request(f"check-{n}", picture, prompt, -1) for n, picture in enumerate(pictures)]


def check_pictures(ask: Ask, prompt: str) -> None:
    """Raise `RefusedError` if pictures make no difference, or if answers come back to the wrong requests."""
    requests = made_up_requests(prompt)
    alone = [ask(request, 0.0).text for request in requests]
    if len(set(alone)) == 1:
        raise RefusedError("four different pictures got the same text, so it does not see them")
    with ThreadPoolExecutor(len(requests)) as pool:
        together = [completion.text for completion in pool.map(lambda request: ask(request, 0.0), requests)]
    for own, text in zip(alone, together, strict=True):
        if text != own and text in alone:
            raise RefusedError("of four pictures asked at once, one got the text of another")


def check_seeds(ask: Ask, prompt: str) -> None:
    """Raise `RefusedError` if the server does not sample, or not by the seed of the request."""
    picture = made_up_requests(prompt)[1]
    requests = [Request(picture.key, picture.image, prompt, seed) for seed in (*_SEEDS, _SEEDS[0])]
    texts = [ask(request, 2.0).text for request in requests]
    if len(set(texts)) == 1:
        raise RefusedError("it gives one text at temperature 2 whatever the seed; use --temperature 0 with it")
    if texts[0] != texts[-1]:
        raise RefusedError("it gives two texts for one seed; use its deterministic mode, or --temperature 0")


def check_model(address: Address, model: str, answers_to: Callable[[str], Any], lines: OpenLines) -> None:
    """Raise `RefusedError` unless the server serves `model`.

    It does if /v1/models lists it, or if it refuses a name that nobody has: `transformers serve` lists the hub's cache,
    where a local checkpoint is not. (The caller has seen that it answers to `model`.)
    """
    try:
        listed = [str(entry["id"]) for entry in address.get("/v1/models", _LIST_SECONDS, lines)["data"]]
    except (TroubleError, RefusedError, LookupError, TypeError):
        listed = []
    if model in listed or f"{model}@main" in listed:
        return
    try:
        answers_to("latentmill-asks-for-no-such-model")
    except RefusedError:
        return
    except TroubleError as error:
        if error.status:
            return
        raise
    serves = f"serves {', '.join(listed[:5])}" if listed else "does not say what it serves"
    raise RefusedError(f"it {serves}, and answers to any name; start it with the model, or name --server-model")
