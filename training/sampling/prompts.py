"""Prompts to T5 embeddings, for sampling. Training reads embeddings that were made beforehand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, T5EncoderModel

from schemas.errors import UserError

_TOKENIZER_FILES: Final = ("tokenizer.json", "spiece.model")


class EncodedPrompts(NamedTuple):
    """Embeddings [B, L, D], float32 on the CPU; true lengths [B], end token included; and what was cut at the limit."""

    text: Tensor
    lengths: Tensor
    truncated: tuple[bool, ...]


def text_width(directory: str) -> int:
    """The width D of the embeddings of the T5 in `directory`. Raises `UserError` if there is none."""
    if not Path(directory).is_dir():
        raise UserError(f"{directory}: no such directory. Give the directory of a T5 model and its tokenizer.")
    try:
        width = AutoConfig.from_pretrained(directory).d_model
    except (OSError, ValueError, AttributeError):
        raise UserError(
            f"{directory}: no T5 model there. Give the directory of a T5 model and its tokenizer."
        ) from None
    return int(width)


class PromptEncoder:
    """The encoder half of a T5 and its tokenizer, loaded from one directory onto `device` as `dtype`."""

    def __init__(self, directory: str, device: torch.device, dtype: torch.dtype) -> None:
        self._tokenizer = load_tokenizer(directory)
        try:
            # Loading in the wanted type, not casting afterwards, keeps the layers in fp32 that fp16 would overflow.
            model, found = T5EncoderModel.from_pretrained(directory, dtype=dtype, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(
                f"{directory}: the T5 does not load ({reason}). Download it again, tokenizer included."
            ) from None
        if found["missing_keys"]:
            raise UserError(
                f"{directory}: weights of the T5 are missing ({min(found['missing_keys'])}). Download it again."
            )
        self._model: Any = model.to(device).eval()
        self._device = device

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], limit: int) -> EncodedPrompts:
        """Embed `prompts`, each cut to `limit` tokens with the end token last."""
        tokens = self._tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
            return_attention_mask=True,
        )
        untruncated = self._tokenizer(list(prompts), truncation=False, verbose=False).input_ids
        mask = tokens.attention_mask
        embedded = self._model(input_ids=tokens.input_ids.to(self._device), attention_mask=mask.to(self._device))
        return EncodedPrompts(
            text=embedded.last_hidden_state.float().cpu(),
            lengths=mask.sum(dim=1),
            truncated=tuple(len(ids) > limit for ids in untruncated),
        )


def load_tokenizer(directory: str) -> Any:
    """The tokenizer in a T5's directory. Raises `UserError` if there is none, or it is not a T5's."""
    # Without its files the library makes up an empty tokenizer, for which every word is unknown.
    if not any((Path(directory) / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"{directory}: no tokenizer there (neither {' nor '.join(_TOKENIZER_FILES)}). Copy it to where the T5 is."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{directory}: its tokenizer does not load ({reason}). Download it again.") from None
    if tokenizer.eos_token_id is None or list(tokenizer("").input_ids) != [tokenizer.eos_token_id]:
        raise UserError(f"{directory}: its tokenizer adds no end token, so it is not a T5's. Download it again.")
    return tokenizer
