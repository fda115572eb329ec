"""What the training loop needs of a model: how it is built, what data it takes, how it is called and counted."""

from dataclasses import dataclass, replace
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from schemas.errors import UserError
from training.data.draws import Batch
from training.data.manifest import Manifest
from training.models.config import DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.flops import dit_flops, pixart_flops
from training.models.pixart import PixArt


class Network(Protocol):
    """One kind of model. A kind more is a class here and a line in `network_of`."""

    @property
    def config(self) -> PixArtConfig | DitConfig:
        """What the model is built from."""

    def build(self) -> nn.Module:
        """The model with weights drawn anew from torch's global generator."""

    def require(self, manifest: Manifest) -> None:
        """Raise `UserError` unless the data has the conditions that the model is trained on."""

    def with_null(self, manifest: Manifest, model: nn.Module) -> Manifest:
        """The data with what this model takes in place of a dropped condition."""

    def predict(self, model: nn.Module, noised: Tensor, batch: Batch) -> Tensor:
        """The output of `model`, which may be wrapped, for `noised` [B, C, h, w] under the conditions of `batch`."""

    def flops(self, batch: Batch) -> int:
        """Operations of forward and backward pass over `batch`, whose text counts as it is padded."""


def network_of(config: PixArtConfig | DitConfig) -> Network:
    """The kind of model that `config` belongs to."""
    return ClassToImage(config) if isinstance(config, DitConfig) else TextToImage(config)


@dataclass(frozen=True, slots=True)
class TextToImage:
    """PixArt, conditioned on T5 embeddings."""

    config: PixArtConfig

    def build(self) -> nn.Module:
        """See `Network`."""
        return PixArt(self.config)

    def require(self, manifest: Manifest) -> None:
        """See `Network`."""
        if not manifest.text:
            raise UserError("a PixArt trains on text, and none is given. Name it with --text, or use --stage pixel.")

    def with_null(self, manifest: Manifest, model: nn.Module) -> Manifest:
        """The T5 embedding of the empty string; or the constant in the weights, in the length of the caption."""
        if self.config.null_caption != "buffer":
            return manifest
        if manifest.facts.max_tokens > self.config.text_tokens:
            raise UserError(
                f"captions have up to {manifest.facts.max_tokens} tokens, the null caption in the weights has "
                f"{self.config.text_tokens}. Use --null-caption empty-string, or text of fewer tokens."
            )
        buffer = cast(PixArt, model).y_embedder.y_embedding
        return replace(manifest, null_text=buffer.detach().cpu().half().numpy(), null_fills_caption=True)

    def predict(self, model: nn.Module, noised: Tensor, batch: Batch) -> Tensor:
        """See `Network`."""
        output: Tensor = model(
            noised, batch.timesteps, batch.text, batch.text_lengths, batch.sizes, batch.lengths_on_host
        )
        return output

    def flops(self, batch: Batch) -> int:
        """See `Network`."""
        count, _, height, width = batch.latents.shape
        return count * pixart_flops(self.config, height, width, batch.text.shape[1]).step


@dataclass(frozen=True, slots=True)
class ClassToImage:
    """DiT, conditioned on classes; the null class is number `config.classes`."""

    config: DitConfig

    def build(self) -> nn.Module:
        """See `Network`."""
        return DiT(self.config)

    def require(self, manifest: Manifest) -> None:
        """See `Network`."""
        if manifest.text:
            raise UserError("a DiT trains on classes and would not look at text. Leave out --text.")
        manifest.require_labels(self.config.classes)

    def with_null(self, manifest: Manifest, model: nn.Module) -> Manifest:
        """The null class needs nothing of the data."""
        return manifest

    def predict(self, model: nn.Module, noised: Tensor, batch: Batch) -> Tensor:
        """See `Network`."""
        labels = torch.where(batch.labels < 0, self.config.classes, batch.labels)
        output: Tensor = model(noised, batch.timesteps, labels)
        return output

    def flops(self, batch: Batch) -> int:
        """See `Network`."""
        count, _, height, width = batch.latents.shape
        return count * dit_flops(self.config, height, width).step


def smallest_batch(config: PixArtConfig | DitConfig, device: torch.device) -> Batch:
    """One sample of a single token, of zeros, that either kind of model takes."""
    channels = config.caption_channels if isinstance(config, PixArtConfig) else 0
    latents = torch.zeros(1, config.in_channels, config.patch, config.patch, device=device)
    one = torch.ones(1, dtype=torch.int64, device=device)
    return Batch(
        latents=latents,
        noise=latents,
        timesteps=one,
        text=torch.zeros(1, 8, channels, device=device),
        text_lengths=one,
        lengths_on_host=(1,),
        labels=one - 1,
        sizes=torch.ones(1, 3, device=device),
        weights=torch.ones(1, device=device),
    )
