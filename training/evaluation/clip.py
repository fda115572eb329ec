"""How well pictures show what their prompts say, by the cosine of CLIP's two embeddings."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from schemas.errors import UserError
from training.evaluation.digests import directory_digest

PLAIN: Final = "{prompt}"
"""The template that most papers use: the prompt itself. Hessel et al. 2021 put `A photo depicts ` before it."""

_HESSEL: Final = 2.5


@dataclass(frozen=True, slots=True)
class ClipScore:
    """Over `count` pictures; both scores clip negative cosines at 0 one by one, before the mean."""

    count: int
    cosine: float  # mean, nothing clipped
    cosine_error: float | None  # standard error of it; None for one picture
    score_100: float  # mean of 100 max(cosine, 0); torchmetrics clips the mean, not each
    score_hessel: float  # mean of 2.5 max(cosine, 0), the definition of Hessel et al. 2021
    truncated: int  # prompts that CLIP did not read to their end
    template: str
    model: str
    model_digest: str


class Clip:
    """A CLIP in a directory, by transformers. Raises `UserError` if none loads from it."""

    def __init__(self, directory: Path, device: torch.device) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

        if not directory.is_dir():
            raise UserError(f"{directory}: no such directory. Give the directory of a CLIP model.")
        try:
            model, found = CLIPModel.from_pretrained(directory, output_loading_info=True)
            self._images: Any = CLIPImageProcessorPil.from_pretrained(directory)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{directory}: no CLIP loads from it ({reason}). Download it again, whole.") from None
        if found["missing_keys"]:
            raise UserError(f"{directory}: weights of CLIP are missing ({min(found['missing_keys'])}). Load it again.")
        self._model: Any = model.to(device).eval()
        self._device = device
        self.limit = int(model.config.text_config.max_position_embeddings)
        self.name, self.digest = directory.name, directory_digest(directory)

    @torch.no_grad()
    def cosines(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> tuple[NDArray[np.float64], int]:
        """The cosine of each picture with its text [B], and how many texts are longer than CLIP reads."""
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=self.limit, return_tensors="pt")
        whole = self._tokenizer(list(texts), truncation=False, verbose=False).input_ids
        pixels: Tensor = self._images(images=list(pictures), return_tensors="pt").pixel_values
        out = self._model(
            input_ids=tokens.input_ids.to(self._device),
            attention_mask=tokens.attention_mask.to(self._device),
            pixel_values=pixels.to(self._device),
        )
        image, text = (
            torch.nn.functional.normalize(part.double(), dim=-1) for part in (out.image_embeds, out.text_embeds)
        )
        return (image * text).sum(dim=-1).cpu().numpy(), sum(len(ids) > self.limit for ids in whole)


def clip_score(clip: Clip, paths: Sequence[Path], prompts: Sequence[str], template: str, batch: int) -> ClipScore:
    """The score of pictures in files against their prompts, each put into `template` at `{prompt}`.

    Raises `UserError` for a template without it, numbers that differ, and pictures that cannot be read.
    """
    if PLAIN not in template:
        raise UserError(f"--clip-template {template!r} has no {PLAIN}. Write it where the prompt belongs.")
    if len(paths) != len(prompts):
        raise UserError(f"{len(paths):,} pictures but {len(prompts):,} prompts. Give one prompt a picture, in order.")
    found, truncated = [], 0
    for chosen in _slices(len(paths), batch):
        texts = [template.replace(PLAIN, prompt) for prompt in prompts[chosen]]
        cosines, cut = clip.cosines([_read(path) for path in paths[chosen]], texts)
        found.append(cosines)
        truncated += cut
    return summarised(np.concatenate(found), truncated, template, clip.name, clip.digest)


def summarised(cosines: NDArray[np.float64], truncated: int, template: str, model: str, digest: str) -> ClipScore:
    """The scores of cosines [N]."""
    count, positive = len(cosines), float(np.maximum(cosines, 0).mean())
    error = float(cosines.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return ClipScore(
        count, float(cosines.mean()), error, 100 * positive, _HESSEL * positive, truncated, template, model, digest
    )


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path}: no readable picture ({error}). Make it again, or take it away.") from None
