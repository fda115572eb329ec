"""Latents to pictures through a VAE's decoder."""

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from torch import Tensor

from schemas.errors import UserError

Pictures = npt.NDArray[np.uint8]

_CLASSES: Final[dict[str, Any]] = {
    "AutoencoderKL": AutoencoderKL,
    "AutoencoderDC": AutoencoderDC,
    "AutoencoderTiny": AutoencoderTiny,
}


class LatentDecoder:
    """The VAE in a directory of diffusers' layout: an AutoencoderKL, -DC or -Tiny, as its config.json says.

    `channels` is the latents' channel count, `cell` the side of a latent cell in pixels, `scaling_factor` what the
    VAE's configuration says, and `takes_scaled` whether only that matters in decoding (see `__call__`).
    Raises `UserError` if there is no such VAE.
    """

    def __init__(self, directory: str) -> None:
        try:
            name = json.loads((Path(directory) / "config.json").read_text())["_class_name"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{directory}: no VAE there (no readable config.json that names its class). Give the directory of an "
                f"AutoencoderKL, AutoencoderDC or AutoencoderTiny."
            ) from None
        if name not in _CLASSES:
            raise UserError(
                f"{directory}: a {name}, not one of {', '.join(_CLASSES)}. Give the directory of one of these."
            )
        try:
            self._vae, found = _CLASSES[name].from_pretrained(directory, output_loading_info=True)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{directory}: the VAE does not load ({reason}). Download it again.") from None
        if found["missing_keys"]:
            raise UserError(
                f"{directory}: weights of the VAE are missing ({min(found['missing_keys'])}). Download it again."
            )
        self._vae.eval()
        self.takes_scaled = name == "AutoencoderTiny"
        self.channels = int(self._vae.config.latent_channels)
        blocks = "decoder_block_out_channels" if name == "AutoencoderDC" else "block_out_channels"
        self.cell: int = 2 ** (len(self._vae.config[blocks]) - 1)
        self.scaling_factor = float(self._vae.config.scaling_factor)

    def to(self, device: torch.device) -> "LatentDecoder":
        """Move the VAE to `device`."""
        self._vae.to(device)
        return self

    @torch.no_grad()
    def __call__(self, latents: Tensor, scaling_factor: float, shift_factor: float) -> Pictures:
        """Scaled latents [B, C, h, w] to RGB, uint8 [B, H, W, 3], picture by picture to bound memory.

        The factors are those that the model's training latents were scaled by. An AutoencoderTiny stands in for the
        KL autoencoder that made the latents and was taught to take them scaled, so that it has factors of its own.
        """
        if self.takes_scaled:
            scaling_factor, shift_factor = self.scaling_factor, float(self._vae.config.shift_factor)
        raw = latents.to(self._vae.device, self._vae.dtype) / scaling_factor + shift_factor
        return np.stack([self._picture(raw[i : i + 1]) for i in range(len(raw))])

    def _picture(self, raw: Tensor) -> Pictures:
        pixels: Tensor = self._vae.decode(raw, return_dict=False)[0][0].float()
        levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round()
        return levels.permute(1, 2, 0).to("cpu", torch.uint8).numpy()


def grid(pictures: Pictures) -> Pictures:
    """Pictures [B, H, W, 3] row by row in one, as near to a square as it goes: [rows * H, columns * W, 3]."""
    count, height, width, _ = pictures.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    filled = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    filled[:count] = pictures
    return filled.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
