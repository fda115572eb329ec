"""The class-conditional DiT of PixArt-α's first stage (Peebles & Xie 2022), named as in its official checkpoints."""

import torch
from torch import Tensor, nn

from training.models.adaln import AdaLnFinalLayer, DitBlock
from training.models.block import run_block
from training.models.config import DitConfig
from training.models.embeddings import LabelEmbedder, PatchEmbedder, PositionEmbedding, ScalarEmbedder, unpatchify


class DiT(nn.Module):
    """Predicts epsilon, and the variance where it is learned, from noised latents, timesteps and class labels.

    Parameters are named and shaped as in the official checkpoints but for `pos_embed`, which those keep as a frozen
    parameter and which is computed here: at XL/2 and 256 px 674,834,720 parameters and 294,912 positions make the
    675,129,632 that are reported for it.

    The null class of classifier-free guidance is label `config.classes`. Whoever makes the batch drops labels to it;
    the model does not. With `checkpoint_activations` the backward pass computes each block anew, as in `PixArt`.
    """

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        hidden = config.hidden
        self.x_embedder = PatchEmbedder(config.in_channels, hidden, config.patch)
        self.positions = PositionEmbedding(hidden, config.position_base, 1.0)
        self.t_embedder = ScalarEmbedder(hidden)
        self.y_embedder = LabelEmbedder(config.classes, hidden)
        self.blocks = nn.ModuleList(DitBlock(hidden, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_layer = AdaLnFinalLayer(hidden, config.patch, config.out_channels)
        self.initialise()

    def forward(self, latents: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """[B, 2C, H, W] if the variance is learned, else [B, C, H, W]: the prediction, then the variance channels.

        latents: [B, C, H, W], noised; H and W are multiples of the patch.
        timesteps: [B] int64 in [0, T); under flow matching float32 in [0, 1000].
        labels: [B] int64 in [0, classes]; `classes` itself is the null class.
        """
        return self.denoise(latents, self.t_embedder(timesteps) + self.y_embedder(labels))

    def denoise(self, latents: Tensor, condition: Tensor) -> Tensor:
        """`forward` for a condition [B, D] made by the caller, such as embedded time without any class."""
        dtype = self.final_layer.linear.weight.dtype
        rows, columns = (side // self.config.patch for side in latents.shape[-2:])
        x = self.x_embedder(latents.to(dtype)) + self.positions(rows, columns, latents.device).to(dtype)
        for block in self.blocks:
            x = run_block(block, self.checkpoint_activations, x, condition, rows, columns)
        return unpatchify(self.final_layer(x, condition), rows, columns, self.config.patch)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every parameter anew, as DiT does: all modulation and the output zero, so that each block is identity.

        Linear layers and patches Xavier-uniform with zero bias; embedders of time and class normal with std 0.02.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.hidden, -1))
        assert self.x_embedder.proj.bias is not None
        nn.init.zeros_(self.x_embedder.proj.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for linear in (module for module in self.t_embedder.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, DitBlock)
            nn.init.zeros_(block.adaLN_modulation.linear.weight)
        nn.init.zeros_(self.final_layer.adaLN_modulation.linear.weight)
        nn.init.zeros_(self.final_layer.linear.weight)
