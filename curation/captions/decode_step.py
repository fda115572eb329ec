"""One token of every row, by the text model's own modules over a `SlotCache`.

The library's step asks a cache object for each layer's past, builds masks for any kind of attention, and with the
usual cache copies the whole past for each token. Here the past stays where it is, and attention is over the columns
that the row has, or on other devices some row. Norms, projections, the multi-layer perceptrons, rotary frequencies and
the head are called as they are; what stands between them is that of Llama, Mistral and Qwen2, which the models of the
LLaVA family are built on.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from transformers import LlamaModel, MistralModel, Qwen2Model
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from curation.captions.attention import is_quick, masked, own_columns
from curation.captions.slot_cache import SlotCache

_MODELS: Final = frozenset({"llava", "llava_next", "llava_onevision", "vipllava"})
_TEXT_MODELS: Final = (LlamaModel, MistralModel, Qwen2Model)
_ROPES: Final = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary frequencies that are the same at every length; the others follow the longest row of a batch."""


def why_not(model: Any) -> str | None:
    """Why `model` cannot be stepped here, as the end of a sentence; None where it can."""
    kind = str(model.config.model_type)
    if kind not in _MODELS:
        return f"a {kind} may place its tokens otherwise than one after the other"
    text = model.model.language_model
    if type(text) not in _TEXT_MODELS:
        return f"a {type(text).__name__} has layers of its own"
    kinds = set(getattr(text.config, "layer_types", None) or {"full_attention"})
    if kinds != {"full_attention"} or getattr(text.config, "sliding_window", None) is not None:
        return "its attention is over a window that slides"
    if text.rotary_emb.rope_type not in _ROPES:
        return f"its rotary embedding is of the kind {text.rotary_emb.rope_type}"
    return None


class DecodeStep:
    """Steps `model`, one of which `why_not` says nothing. On a CPU its weights are laid out anew for it.

    `backend` compiles the step, for which shapes are kept fixed: all columns are attended to.
    """

    def __init__(self, model: Any, backend: str | Callable[..., Any] | None = None) -> None:
        self._text, self._head = model.model.language_model, model.lm_head
        _lay_out(self._text)
        self._fixed = backend is not None
        self._run: Callable[..., Tensor] = self._scores
        if backend is not None:
            self._run = torch.compile(self._scores, backend=backend, dynamic=False)

    def __call__(self, tokens: list[int], cache: SlotCache) -> Tensor:
        """The scores [B, V] of what follows `tokens`, the latest one of every slot, which are written into `cache`."""
        positions = cache.positions()
        columns = cache.columns if self._fixed else max(cache.lengths) + 1
        scores = self._run(torch.tensor(tokens, device=positions.device), positions, cache.keys, cache.values, columns)
        cache.stepped()
        return scores

    def _scores(
        self, tokens: Tensor, positions: Tensor, keys: list[Tensor], values: list[Tensor], columns: int
    ) -> Tensor:
        hidden = self._text.embed_tokens(tokens)  # [B, N]
        rows = torch.arange(len(tokens), device=tokens.device)
        cos, sin = self._text.rotary_emb(hidden, positions.unsqueeze(1))
        rotation = (cos.squeeze(1), sin.squeeze(1))
        # A row looks at its own columns, up to the one of this step.
        bias = None if not self._fixed and is_quick(keys[0]) else _bias(positions, columns, hidden)
        for layer, layer_keys, layer_values in zip(self._text.layers, keys, values, strict=True):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            shape = (len(tokens), -1, attention.head_dim)
            query, key = apply_rotary_pos_emb(
                attention.q_proj(normed).view(shape), attention.k_proj(normed).view(shape), *rotation
            )
            layer_keys[rows, :, positions] = key
            layer_values[rows, :, positions] = attention.v_proj(normed).view(shape)
            if bias is None:
                looked = own_columns(query, layer_keys, layer_values, positions, attention.scaling)
            else:
                looked = masked(
                    query, layer_keys[:, :, :columns], layer_values[:, :, :columns], bias, attention.scaling
                )
            hidden = hidden + attention.o_proj(looked.reshape(len(tokens), -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self._head(self._text.norm(hidden))


def _bias(positions: Tensor, columns: int, like: Tensor) -> Tensor:
    """What is added to the scores, [B, 1, 1, C]: 0 up to each row's position, minus infinity beyond."""
    seen = (torch.arange(columns, device=like.device) <= positions.unsqueeze(1))[:, None, None]
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(~seen, -torch.inf)


def _lay_out(text: Any) -> None:
    """Have the matrices of the layers lie column by column, which a CPU multiplies few rows with a fifth faster."""
    with torch.inference_mode(False):
        for module in text.layers.modules():
            if isinstance(module, torch.nn.Linear) and module.weight.device.type == "cpu":
                module.weight.data = module.weight.data.t().contiguous().t()
