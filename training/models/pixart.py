"""PixArt-α (Chen et al. 2023): a DiT with cross-attention to T5 embeddings and one shared adaLN."""

import torch
from torch import Tensor, nn

from training.models.attention import key_mask, padding_bias
from training.models.block import FinalLayer, PixArtBlock
from training.models.config import PixArtConfig
from training.models.embeddings import CaptionEmbedder, PatchEmbedder, PositionEmbedding, ScalarEmbedder


class PixArt(nn.Module):
    """Predicts epsilon, and the variance where it is learned, from noised latents, timesteps and text.

    Parameters are named and shaped as in the official checkpoints, which therefore load after two keys are dropped:
    `pos_embed`, which is computed here, and `y_embedder.y_embedding`.

    The latter is the released code's null condition of classifier-free guidance: a random constant that no optimiser
    ever touches, put in place of one caption in ten inside the model while training, under that caption's own mask.
    Here the null condition is the T5 embedding of the empty string with its own length (as diffusers samples the
    released weights), stored with the text dataset and applied by whoever makes the batch; the model neither drops
    captions nor knows about it.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.x_embedder = PatchEmbedder(config.in_channels, hidden, config.patch)
        self.positions = PositionEmbedding(hidden, config.position_base, config.position_scale)
        self.t_embedder = ScalarEmbedder(hidden)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))
        self.y_embedder = CaptionEmbedder(config.caption_channels, hidden)
        if config.micro_conditions:
            self.csize_embedder = ScalarEmbedder(hidden // 3)
            self.ar_embedder = ScalarEmbedder(hidden // 3)
        self.blocks = nn.ModuleList(PixArtBlock(hidden, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.final_layer = FinalLayer(hidden, config.patch, config.out_channels)
        self.initialise()

    def forward(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, text_lengths: Tensor, sizes: Tensor | None = None
    ) -> Tensor:
        """[B, 2C, H, W] if the variance is learned, else [B, C, H, W]: epsilon first, then the variance channels.

        latents: [B, C, H, W], noised; H and W are multiples of the patch.
        timesteps: [B] int64 in [0, T).
        text: [B, L, caption_channels] T5 embeddings; rows at and beyond the true length may hold anything.
        text_lengths: [B] int64, true lengths, at least 1.
        sizes: [B, 3] original height in px, original width in px, aspect ratio height / width of the bucket.
            Needed with micro-conditions, otherwise not looked at.
        """
        dtype = self.final_layer.scale_shift_table.dtype
        batch, _, height, width = latents.shape
        rows, columns = height // self.config.patch, width // self.config.patch
        x = self.x_embedder(latents.to(dtype)) + self.positions(rows, columns, latents.device).to(dtype)
        time = self._embed_conditions(timesteps, sizes)
        modulation = self.t_block(time).view(batch, 6, self.config.hidden)
        mask = key_mask(text_lengths, text.shape[1])
        embedded = self.y_embedder(text.to(dtype).masked_fill(~mask[..., None], 0))
        key_bias = padding_bias(mask, embedded.dtype)
        for block in self.blocks:
            x = block(x, embedded, key_bias, modulation)
        return self._unpatchify(self.final_layer(x, time), rows, columns)

    def _embed_conditions(self, timesteps: Tensor, sizes: Tensor | None) -> Tensor:
        time: Tensor = self.t_embedder(timesteps)
        if not self.config.micro_conditions:
            return time
        if sizes is None:
            raise ValueError("sizes [B, 3] are required by a PixArt with micro-conditions")
        size = self.csize_embedder(sizes[:, :2].reshape(-1)).view(len(sizes), -1)
        return time + torch.cat([size, self.ar_embedder(sizes[:, 2])], dim=1)

    def _unpatchify(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        patch, channels = self.config.patch, self.config.out_channels
        grid = patches.view(-1, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(-1, channels, rows * patch, columns * patch)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every parameter anew, as the released code does.

        Linear layers Xavier-uniform with zero bias, but the embedders and the shared adaLN normal with std 0.02;
        cross-attention outputs and the final layer zero; tables normal with std 1 / sqrt(D). Gates are therefore not
        zero at the start: only the cross-attention branch begins as the identity.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.hidden, -1))
        embedders = [self.t_embedder, self.t_block, self.y_embedder]
        if self.config.micro_conditions:
            embedders += [self.csize_embedder, self.ar_embedder]
        for linear in (m for embedder in embedders for m in embedder.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, PixArtBlock)
            nn.init.zeros_(block.cross_attn.proj.weight)
            nn.init.normal_(block.scale_shift_table, std=self.config.hidden**-0.5)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.normal_(self.final_layer.scale_shift_table, std=self.config.hidden**-0.5)
