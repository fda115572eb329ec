"""The detector's network: a CLIP vision tower, and a query for each ninth of the picture and for the ground."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from curation.scenes.vocabulary import COLOURS, COLUMNS, GROUND_NOUNS, NOUNS, ROWS, SIZES
from schemas.errors import UserError

PLACES: Final = len(ROWS) * len(COLUMNS)
UNRECOGNISED: Final = len(NOUNS)
"""The answer to "noun" where something is that no noun fits."""

NOTHING: Final = len(NOUNS) + 1
_HEADS: Final = 6
_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Answers:
    """Logits: of the nine places, row by row, [B, 9, answers]; of the ground [B, answers]."""

    noun: Tensor
    colour: Tensor
    size: Tensor
    ground: Tensor
    upper: Tensor
    lower: Tensor


class SceneReader(nn.Module):
    """Pictures [B, 3, S, S], normalised as CLIP's, to `Answers`."""

    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        self.vision = vision
        self.tower = CLIPVisionModel(CLIPVisionConfig(**vision))
        width: int = self.tower.config.hidden_size
        self.queries = nn.Parameter(torch.randn(PLACES + 1, width) * 0.5)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, _HEADS, batch_first=True)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.out = nn.LayerNorm(width)
        self.of_place = nn.Linear(width, NOTHING + 1 + len(COLOURS) + len(SIZES))
        self.of_ground = nn.Linear(width, len(GROUND_NOUNS) + 2 * len(COLOURS))

    def forward(self, pixels: Tensor) -> Answers:
        """What each place and the ground show."""
        tokens = self.norm(self.tower(pixels).last_hidden_state)
        found, _ = self.attention(self.queries.expand(len(pixels), -1, -1), tokens, tokens, need_weights=False)
        found = self.out(found + self.mix(found))
        of_place = self.of_place(found[:, :PLACES]).split([NOTHING + 1, len(COLOURS), len(SIZES)], dim=-1)
        of_ground = self.of_ground(found[:, PLACES]).split([len(GROUND_NOUNS), len(COLOURS), len(COLOURS)], dim=-1)
        return Answers(*of_place, *of_ground)


def save_reader(reader: SceneReader, directory: Path) -> None:
    """Write `config.json` and half-precision `model.safetensors`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _CONFIG).write_text(json.dumps({"vision": reader.vision}, indent=2, sort_keys=True) + "\n")
    save_file({name: value.half().contiguous() for name, value in reader.state_dict().items()}, directory / _WEIGHTS)


def load_reader(directory: Path) -> SceneReader:
    """The network of a directory that `save_reader` wrote, in single precision, for use.

    Raises `UserError` if there is none.
    """
    try:
        reader = SceneReader(json.loads((directory / _CONFIG).read_text())["vision"])
        weights = {name: value.float() for name, value in load_file(directory / _WEIGHTS).items()}
        reader.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{directory}: no detector of this package there ({type(error).__name__}: {reason}). Give the directory "
            f"that pipelines.train_small detector wrote."
        ) from None
    return reader.eval()
