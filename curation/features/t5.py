"""Captions to T5 embeddings: tokens with the end token last, and the encoder's output for the true tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoTokenizer, T5EncoderModel

from curation.checkpoints import Checkpoint
from curation.compute import Compute, repeatable
from curation.loading import load_model, read_config
from schemas.errors import UserError

_PLAIN_ENGLISH: Final = "the picture shows a"


@dataclass(frozen=True, slots=True)
class Tokens:
    """A caption's token ids, the end token last, and whether some were cut off to keep the limit."""

    ids: tuple[int, ...]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


def text_width(checkpoint: Checkpoint) -> int:
    """The width D of the embeddings. Raises `UserError` unless `checkpoint` is a T5."""
    config = read_config(checkpoint)
    if config.get("model_type") != "t5":
        found = config.get("model_type") or config.get("_class_name") or "model of unknown type"
        raise UserError(f"{checkpoint.source}: a {found}, not a T5. Give --t5 a T5 (v1.1, Flan, any size).")
    return int(config["d_model"])


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices into `lengths` in batches whose padded size stays within `max_tokens` (one text always fits).

    Short ones first, equal ones in order, so that the batches follow from the lengths alone and padding is rare.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > max_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches


class TextEncoder:
    """The encoder half of a T5 with its tokenizer."""

    def __init__(self, checkpoint: Checkpoint, compute: Compute) -> None:
        self._compute, self._device = compute, compute.require_device()
        self._tokenizer = load_tokenizer(checkpoint)
        # Loading in the wanted type, not casting afterwards, keeps the layers in float32 that float16 would overflow.
        self._model = load_model(T5EncoderModel, checkpoint, compute, "dtype")

    def tokens(self, texts: Sequence[str], limit: int) -> list[Tokens]:
        """The tokens of `texts`, at most `limit` each, see `tokenise`."""
        return tokenise(self._tokenizer, texts, limit)

    def encode(self, batch: Sequence[Tokens]) -> list[npt.NDArray[np.float32]]:
        """The embedding of each text, float32 [N, D], N its true length."""
        longest = max(len(tokens) for tokens in batch)
        ids = torch.full((len(batch), longest), self._tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor(tokens.ids)
            mask[row, : len(tokens)] = 1
        with repeatable(self._compute):
            output = self._model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device))
            embedded: npt.NDArray[np.float32] = output.last_hidden_state.float().cpu().numpy()
        return [embedded[row, : len(tokens)] for row, tokens in enumerate(batch)]

    def close(self) -> None:
        """Give back the model's memory."""
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def tokenise(tokenizer: Any, texts: Sequence[str], limit: int) -> list[Tokens]:
    """The tokens of `texts`, at most `limit` each, the end token included. Nothing is cleaned or lower-cased."""
    if not texts:
        return []
    tokens = [Tokens(tuple(ids), False) for ids in tokenizer(list(texts), verbose=False).input_ids]
    long = [i for i, whole in enumerate(tokens) if len(whole) > limit]
    if long:
        cut = tokenizer([texts[i] for i in long], truncation=True, max_length=limit).input_ids
        for i, ids in zip(long, cut, strict=True):
            tokens[i] = Tokens(tuple(ids), True)
    return tokens


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of `checkpoint`. Raises `UserError` unless it is whole and a T5's."""
    where = {"revision": checkpoint.revision} if checkpoint.revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **where)
    except (OSError, ValueError, KeyError, TypeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{checkpoint.source}: its tokenizer does not load ({lines[0][:160]}).") from error
    if tokenizer.eos_token_id is None or list(tokenizer("").input_ids) != [tokenizer.eos_token_id]:
        raise UserError(f"{checkpoint.source}: its tokenizer adds no end token, so it is not a T5's. Get it again.")
    # Where its files are missing the library makes up an empty tokenizer, for which every word is unknown.
    if tokenizer.unk_token_id in tokenizer(_PLAIN_ENGLISH).input_ids:
        raise UserError(
            f"{checkpoint.source}: its tokenizer does not know {_PLAIN_ENGLISH!r}. Are tokenizer.json or spiece.model "
            f"missing there?"
        )
    return tokenizer
