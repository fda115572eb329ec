"""Where the vision tower starts: not from noise, but from what patches of the pictures are like.

With random filters a ViT first has to find out that there is more to a patch than its mean colour, which took most of
the time that a small tower has. Filters that whiten patches show it every detail at the same strength.
"""

from typing import Any, Final

import numpy as np
import torch

from curation.demo.llava.pictures import Drawn
from curation.demo.llava.tower import normalised

_PICTURES: Final = 600
_SOFTEST: Final = 1e-3  # variance below which a direction of patches is taken for noise, as share of the largest
_POSITION: Final = 0.5  # amplitude of positions beside whitened patches, which have 1
_SLOWEST: Final = 16.0  # longest wave of positions, in patches


@torch.no_grad()
def prepare_tower(tower: Any, drawn: Drawn) -> None:
    """Set patch filters to the whitened principal directions of patches, and positions to waves down and across."""
    filters = tower.embeddings.patch_embedding.weight  # [width, 3, P, P]
    width, patch = len(filters), filters.shape[-1]
    pixels = normalised(drawn.pixels[:_PICTURES])
    patches = pixels.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
    variance, directions = torch.linalg.eigh(torch.cov(patches.T.double()))
    variance, directions = variance.flip(0)[:width], directions.flip(1)[:, :width]
    scale = (variance + _SOFTEST * variance[0]).rsqrt()
    kept = (directions * scale).T.float()
    filters.zero_()
    filters.view(width, -1)[: len(kept)] = kept
    tower.embeddings.position_embedding.weight[1:] = _POSITION * torch.from_numpy(_waves(drawn, patch, width))


def _waves(drawn: Drawn, patch: int, width: int) -> Any:
    """[patches, width]: sines and cosines of the row in the first half, of the column in the second."""
    side = drawn.pixels.shape[1] // patch
    at = np.arange(side)[:, None] * _SLOWEST ** -np.linspace(0, 1, width // 4)[None]
    waves = np.concatenate([np.sin(at), np.cos(at)], 1)  # [side, width / 2]
    down, across = np.repeat(waves, side, 0), np.tile(waves, (side, 1))
    return np.concatenate([down, across], 1).astype(np.float32)
