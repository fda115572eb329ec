"""How the tokens of text lie in memory and on disk, and back to float16."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from schemas.embedding import int8_record
from training.data.manifest import Manifest
from training.data.npy import npy_header

_LOOKED_AT: Final = 64  # samples of each data set that tell how it is stored


@dataclass(frozen=True, slots=True)
class TextForm:
    """float16 [N, dim] where `groups` is 0; else int8 records with `groups` scales a token (see schemas.embedding)."""

    dim: int
    groups: int = 0

    @property
    def token_bytes(self) -> int:
        """Bytes of one token."""
        return 2 * self.groups + self.dim if self.groups else 2 * self.dim

    @lru_cache(maxsize=4096)  # noqa: B019 - holds forms, of which a run has one
    def layout(self, tokens: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """dtype and shape of the stored array of a text of `tokens` tokens."""
        if self.groups:
            return int8_record(self.dim, self.groups), (tokens,)
        return np.dtype("<f2"), (tokens, self.dim)

    def decode(self, stored: Tensor) -> Tensor:
        """uint8 [..., token_bytes] as float16 [..., dim], on the same device. float16 is looked at, not copied.

        The product of a level and its scale is exact in float32 and rounded once, as schemas.embedding does it.
        """
        if not stored.numel():  # of no bytes there is no view
            return stored.new_empty(*stored.shape[:-1], self.dim, dtype=torch.float16)
        if not self.groups:
            return stored.view(torch.float16)
        # A slice can be looked at as another type only where its rows begin at a multiple of that type's size.
        scale = stored[..., : 2 * self.groups].contiguous().view(torch.float16)
        levels = stored[..., 2 * self.groups :].view(torch.int8)
        return (levels.view(*scale.shape, -1) * scale[..., None]).flatten(-2)


def common_form(manifest: Manifest) -> TextForm:
    """The form of all text of the manifest, told by the sizes of some members; float16 where they differ."""
    forms: set[TextForm] = set()
    for start, stop in pairwise(manifest.about.starts):
        rows = np.unique(np.linspace(start, max(start, stop - 1), _LOOKED_AT).astype(np.int64))
        for variant, places in enumerate(manifest.text):
            tokens = manifest.tokens[rows, variant]
            known = zip(tokens[tokens > 0].tolist(), places.bytes[rows[tokens > 0]].tolist(), strict=True)
            forms.update(_form(list(known), manifest.facts.dim))
    return forms.pop() if len(forms) == 1 else TextForm(manifest.facts.dim)


def _form(known: list[tuple[int, int]], dim: int) -> list[TextForm]:
    """The form in which texts of so many tokens have so many bytes; none if no text is known."""

    def fits(form: TextForm) -> bool:
        return all(size == len(npy_header(*form.layout(count))) + count * form.token_bytes for count, size in known)

    forms = (TextForm(dim, groups) for groups in range(dim + 1) if not groups or dim % groups == 0)
    return [next((form for form in forms if fits(form)), TextForm(dim))] if known else []
