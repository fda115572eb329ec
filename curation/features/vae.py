"""Pictures to latents: what an autoencoder's configuration says of it, and the posterior that its encoder gives."""

import inspect
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny

from curation.checkpoints import Checkpoint
from curation.compute import DTYPES, Compute, repeatable
from curation.loading import load_model, read_config
from schemas.errors import UserError

_CLASSES: Final[dict[str, Any]] = {
    "AutoencoderKL": AutoencoderKL,  # SD 1 to 3, SDXL, Flux: 4 or 16 channels, 8 px a cell
    "AutoencoderDC": AutoencoderDC,  # deep compression, SANA's: 32 channels, 32 px a cell
    "AutoencoderTiny": AutoencoderTiny,
}
_BLOCKS: Final = {"AutoencoderKL": "block_out_channels"}  # of the others: encoder_block_out_channels
_POINT: Final = {"AutoencoderDC": "latent", "AutoencoderTiny": "latents"}
"""The field of the encoder's output, where it is one point and no distribution."""


@dataclass(frozen=True, slots=True)
class Vae:
    """An autoencoder as its configuration describes it; no weights.

    Its latents are trained on as (z - shift_factor) * scaling_factor. `downsample` is pixels a latent cell. One that
    `overflows_in_fp16` says so itself (`force_upcast`, SDXL's): its encoder leaves the range of float16.
    """

    checkpoint: Checkpoint
    kind: str
    channels: int
    downsample: int
    scaling_factor: float
    shift_factor: float
    overflows_in_fp16: bool

    @property
    def has_posterior(self) -> bool:
        """Whether the encoder gives a distribution. The others give one point, so its deviation is exactly 0."""
        return self.kind not in _POINT


def describe_vae(checkpoint: Checkpoint) -> Vae:
    """What `checkpoint` is. Raises `UserError` unless it is one of the known autoencoders of RGB pictures, whose
    latents are normalised by one scale and one shift."""
    written = read_config(checkpoint)
    kind = written.get("_class_name", written.get("model_type", "model of unknown class"))
    if kind not in _CLASSES:
        raise UserError(
            f"{checkpoint.source}: a {kind}, not one of {', '.join(_CLASSES)}. Give --vae the autoencoder alone "
            f"(of a whole pipeline, its vae folder)."
        )
    parameters = inspect.signature(_CLASSES[kind].__init__).parameters
    config = {name: p.default for name, p in parameters.items() if p.default is not p.empty} | written
    if config.get("in_channels") != 3:
        raise UserError(
            f"{checkpoint.source}: takes {config.get('in_channels')} channels, not RGB. Give another --vae."
        )
    if config.get("latents_mean") or config.get("latents_std"):
        raise UserError(
            f"{checkpoint.source}: normalises latents by channel (latents_mean, latents_std), which training does not "
            f"do. Give another --vae."
        )
    blocks = config[_BLOCKS.get(kind, "encoder_block_out_channels")]
    return Vae(
        checkpoint=checkpoint,
        kind=kind,
        channels=int(config["latent_channels"]),
        downsample=2 ** (len(blocks) - 1),
        scaling_factor=float(config["scaling_factor"]),
        shift_factor=float(config.get("shift_factor") or 0.0),
        overflows_in_fp16=written.get("force_upcast") is True,
    )


class VaeEncoder:
    """A loaded autoencoder."""

    def __init__(self, vae: Vae, compute: Compute) -> None:
        self._vae, self._compute = vae, compute
        self._device = compute.require_device()
        self._model = load_model(_CLASSES[vae.kind], vae.checkpoint, compute, "torch_dtype")

    def encode(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Posterior mean and standard deviation, not scaled: [B, H, W, 3] in 0 to 255 to float32 [B, 2, C, h, w]."""
        batch, height, width, _ = pixels.shape
        with repeatable(self._compute):
            levels = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).contiguous()
            images = (levels.float() / 127.5 - 1.0).to(DTYPES[self._compute.dtype])
            encoded = self._model.encode(images)
            if self._vae.has_posterior:
                mean = encoded.latent_dist.mean.float()
                std = torch.exp(0.5 * encoded.latent_dist.logvar.float())
            else:
                mean = getattr(encoded, _POINT[self._vae.kind]).float()
                std = torch.zeros_like(mean)
            posterior: npt.NDArray[np.float32] = torch.stack([mean, std], dim=1).cpu().numpy()
        cell = self._vae.downsample
        expected = (batch, 2, self._vae.channels, height // cell, width // cell)
        if posterior.shape != expected:
            raise AssertionError(f"{self._vae.checkpoint.source}: gave {posterior.shape}, expected {expected}")
        return posterior

    def close(self) -> None:
        """Give back the model's memory."""
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
