"""Embeddings to what is stored of them, and what that costs in accuracy.

`int8` is symmetric: for each token and group of `INT8_GROUP` neighbouring channels, scale = max |x| / 127, rounded to
float16, and levels = round(x / scale) in [-127, 127]. T5's channels have heavy tails, so one scale a token would spend
most levels on a few of them; docs/LOG.md has what groups of 32 to 256 cost and give.
"""

from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from curation.features.storage import to_float16
from schemas.embedding import decode_embedding, int8_record

Codec: TypeAlias = Literal["fp16", "int8"]

CODECS: Final[tuple[Codec, ...]] = ("fp16", "int8")
INT8_GROUP: Final = 64
"""Channels that share a scale. A width that is no multiple of it has one scale a token."""

_LEVELS: Final = 127


def int8_groups(dim: int, group: int = INT8_GROUP) -> int:
    """How many scales a token of width `dim` has."""
    return 1 if dim % group else dim // group


def encode(values: npt.NDArray[np.float32], codec: Codec) -> npt.NDArray[Any] | None:
    """What is stored of the embedding `values` [N, D]; None if float16 cannot hold it, before or after."""
    stored = to_float16(values)
    if stored is None or codec == "fp16":
        return stored
    packed = encode_int8(values, int8_groups(values.shape[1]))
    largest = packed["scale"].astype(np.float32).max(initial=0.0) * _LEVELS
    return packed if largest <= np.finfo(np.float16).max else None


def encode_int8(values: npt.NDArray[np.float32], groups: int) -> npt.NDArray[Any]:
    """`values` [N, D] as records of `groups` scales and D levels, see `schemas.embedding`."""
    tokens, dim = values.shape
    grouped = values.reshape(tokens, groups, dim // groups)
    scale = (np.abs(grouped).max(axis=2) / _LEVELS).astype(np.float16)
    # A group too small for float16's range has scale 0 and levels 0.
    divisor = np.where(scale > 0, scale, np.inf).astype(np.float32)[:, :, None]
    levels = np.rint(grouped / divisor)
    np.clip(levels, -_LEVELS, _LEVELS, out=levels)
    packed = np.empty(tokens, int8_record(dim, groups))
    packed["scale"] = scale
    packed["levels"] = levels.reshape(tokens, dim)
    return packed


class CodecError:
    """The error of a codec over many embeddings, token by token, against the encoder's float32 output."""

    def __init__(self) -> None:
        self._tokens = 0
        self._cosine = self._error = self._norm = 0.0
        self._worst = 0.0

    def add(self, values: npt.NDArray[np.float32], stored: npt.NDArray[Any]) -> None:
        """Take in one embedding [N, D] and what is stored of it."""
        decoded = decode_embedding(stored, "the embedding").astype(np.float32)
        product = np.einsum("nd,nd->n", values, decoded).astype(np.float64)
        norm = np.einsum("nd,nd->n", values, values).astype(np.float64)
        length = np.einsum("nd,nd->n", decoded, decoded).astype(np.float64)
        np.subtract(decoded, values, out=decoded)
        error = np.einsum("nd,nd->n", decoded, decoded).astype(np.float64)
        self._tokens += len(values)
        self._norm += float(norm.sum())
        self._error += float(error.sum())
        lengths = np.sqrt(norm * length)
        # A token of zeros is stored as zeros: nothing is lost.
        cosine = np.divide(product, lengths, out=np.ones_like(product), where=lengths > 0)
        self._cosine += float(np.minimum(cosine, 1.0).sum())
        relative = np.divide(error, norm, out=np.zeros_like(error), where=norm > 0)
        self._worst = max(self._worst, float(np.sqrt(relative.max())))

    @property
    def figures(self) -> dict[str, float]:
        """Mean cosine of a token, relative L2 of all, and the worst token's relative L2; empty without tokens.

        With x a token's embedding and y what is read back: mean of x·y / |x||y|, sqrt(sum |x - y|² / sum |x|²), and
        max of |x - y| / |x|.
        """
        if not self._tokens:
            return {}
        return {
            "codec_mean_cosine": round(self._cosine / self._tokens, 9),
            "codec_relative_l2": float(f"{np.sqrt(self._error / self._norm) if self._norm else 0.0:.6g}"),
            "codec_worst_token_l2": float(f"{self._worst:.6g}"),
        }
