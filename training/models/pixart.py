"""PixArt-α (Chen et al. 2023): a DiT with cross-attention to T5 embeddings and one shared adaLN."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.models.adaln import AdaLn, AdaLnFinalLayer, AdaLnPixArtBlock
from training.models.block import CrossAttention, FinalLayer, PixArtBlock, run_block
from training.models.config import PixArtConfig
from training.models.embeddings import CaptionEmbedder, PatchEmbedder, PositionEmbedding, ScalarEmbedder, unpatchify
from training.models.packing import PackedText, PaddedText, key_mask, pack_text, padding_bias


class PixArt(nn.Module):
    """Predicts epsilon, and the variance where it is learned, from noised latents, timesteps and text.

    Parameters are named and shaped as in the official checkpoints, but for two keys of those: `pos_embed`, which is
    computed here, and `y_embedder.y_embedding`.

    The latter is the released code's null condition of classifier-free guidance: a random constant that no optimiser
    ever touches, put in place of one caption in ten inside the model while training, under that caption's own mask.
    Here the null condition is the T5 embedding of the empty string with its own length (as diffusers samples the
    released weights), stored with the text dataset and applied by whoever makes the batch; the model neither drops
    captions nor knows about it. With `null_caption="buffer"` the constant is kept in the state dict, so that released
    weights go out as they came in and can be sampled in the released way; `forward` does not look at it.

    `modulation="per-block"` is the baseline of the paper's ablation: an adaLN in every block and in the final layer, as
    in DiT, on the sum of time and of the mean text embedding (one linear layer, `pooled_embedder`). The paper does not
    say so much; its 833M parameters do, for they come out exactly.

    Two attributes change how it is computed and nothing else: `attention` is the back-end of cross-attention
    (one of `ATTENTIONS`), and with `checkpoint_activations` the backward pass computes each block anew, from the
    block's input alone.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        self.attention, self.checkpoint_activations = "sdpa", False
        hidden, per_block = config.hidden, config.modulation == "per-block"
        self.x_embedder = PatchEmbedder(config.in_channels, hidden, config.patch)
        self.positions = PositionEmbedding(hidden, config.position_base, config.position_scale)
        self.t_embedder = ScalarEmbedder(hidden)
        if per_block:
            self.pooled_embedder = nn.Linear(config.caption_channels, hidden)
        else:
            self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))
        null_tokens = config.text_tokens if config.null_caption == "buffer" else 0
        self.y_embedder = CaptionEmbedder(config.caption_channels, hidden, null_tokens)
        if config.micro_conditions:
            self.csize_embedder = ScalarEmbedder(hidden // 3)
            self.ar_embedder = ScalarEmbedder(hidden // 3)
        block, final = (AdaLnPixArtBlock, AdaLnFinalLayer) if per_block else (PixArtBlock, FinalLayer)
        self.blocks = nn.ModuleList(
            block(
                hidden,
                config.heads,
                config.mlp_ratio,
                config.qk_norm,
                config.compression if layer in config.compressed_layers else 1,
            )
            for layer in range(config.depth)
        )
        self.final_layer = final(hidden, config.patch, config.out_channels)
        self.initialise()

    def forward(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        text_lengths: Tensor,
        sizes: Tensor | None = None,
        lengths_on_host: Sequence[int] | None = None,
    ) -> Tensor:
        """[B, 2C, H, W] if the variance is learned, else [B, C, H, W]: the prediction, then the variance channels.

        latents: [B, C, H, W], noised; H and W are multiples of the patch.
        timesteps: [B] int64 in [0, T); under flow matching float32 in [0, 1000].
        text: [B, L, caption_channels] T5 embeddings; rows at and beyond the true length may hold anything.
        text_lengths: [B] int64, true lengths, at least 1.
        sizes: [B, 3] original height in px, original width in px, aspect ratio height / width of the bucket.
            Needed with micro-conditions, otherwise not looked at.
        lengths_on_host: `text_lengths` once more, where the caller has them; spares packed attention a wait for the
            device.
        """
        dtype = self.final_layer.linear.weight.dtype
        rows, columns = (side // self.config.patch for side in latents.shape[-2:])
        x = self.x_embedder(latents.to(dtype)) + self.positions(rows, columns, latents.device).to(dtype)
        mask = key_mask(text_lengths, text.shape[1])
        text = text.to(dtype).masked_fill(~mask[..., None], 0)
        condition = self._embed_conditions(timesteps, sizes)
        if self.config.modulation == "per-block":
            condition = condition + self.pooled_embedder(text.sum(dim=1) / text_lengths[:, None].to(dtype))
            modulation = condition
        else:
            modulation = self.t_block(condition).view(len(x), 6, self.config.hidden)
        layout: PaddedText | PackedText = PaddedText(padding_bias(mask, dtype))
        if self.attention != "sdpa":
            longest = max(self.config.text_tokens, text.shape[1])
            text, layout = pack_text(text, text_lengths, lengths_on_host, rows * columns, longest, self.attention)
        embedded = self.y_embedder(text)
        for block in self.blocks:
            x = run_block(block, self.checkpoint_activations, x, embedded, layout, modulation, rows, columns)
        return unpatchify(self.final_layer(x, condition), rows, columns, self.config.patch)

    def _embed_conditions(self, timesteps: Tensor, sizes: Tensor | None) -> Tensor:
        time: Tensor = self.t_embedder(timesteps)
        if not self.config.micro_conditions:
            return time
        if sizes is None:
            raise ValueError("sizes [B, 3] are required by a PixArt with micro-conditions")
        size = self.csize_embedder(sizes[:, :2].reshape(-1)).view(len(sizes), -1)
        return time + torch.cat([size, self.ar_embedder(sizes[:, 2])], dim=1)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw every parameter anew, as the released code does.

        Linear layers Xavier-uniform with zero bias, but the embedders and the shared adaLN normal with std 0.02;
        cross-attention outputs and the final layer zero; tables normal with std 1 / sqrt(D). Gates are therefore not
        zero at the start: only the cross-attention branch begins as the identity. An adaLN per block starts at zero,
        as in DiT. The null caption, if it is kept, and the norms and convolutions of the options are not drawn anew.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.hidden, -1))
        embedders: list[nn.Module] = [self.t_embedder, self.y_embedder]
        embedders.insert(1, self.pooled_embedder if self.config.modulation == "per-block" else self.t_block)
        if self.config.micro_conditions:
            embedders += [self.csize_embedder, self.ar_embedder]
        for linear in (m for embedder in embedders for m in embedder.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(linear.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, CrossAttention):
                nn.init.zeros_(module.proj.weight)
            elif isinstance(module, AdaLn):
                nn.init.zeros_(module.linear.weight)
            elif isinstance(module, PixArtBlock):
                nn.init.normal_(module.scale_shift_table, std=self.config.hidden**-0.5)
        nn.init.zeros_(self.final_layer.linear.weight)
        if isinstance(self.final_layer, FinalLayer):
            nn.init.normal_(self.final_layer.scale_shift_table, std=self.config.hidden**-0.5)
