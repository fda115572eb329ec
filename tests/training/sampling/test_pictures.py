"""Latents to pictures: each kind of autoencoder decodes as the library itself does."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderDC

from training.sampling.pictures import LatentDecoder


def test_a_deep_compression_autoencoder_decodes_as_the_library_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoencoderDC(
        attention_head_dim=8,
        encoder_block_out_channels=(8, 8, 8, 8, 8, 32),
        decoder_block_out_channels=(8, 8, 8, 8, 8, 32),
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        scaling_factor=0.41407,
    ).eval()
    model.save_pretrained(tmp_path)
    decoder = LatentDecoder(str(tmp_path))
    assert (decoder.channels, decoder.cell, decoder.takes_scaled) == (32, 32, False)
    raw = torch.randn(2, 32, 2, 3)
    drawn = decoder((raw - 0.5) * 0.41407, 0.41407, 0.5)
    assert drawn.shape == (2, 64, 96, 3)
    with torch.no_grad():
        expected = model.decode(raw).sample.permute(0, 2, 3, 1).clamp(-1, 1)
    assert np.abs(drawn / 127.5 - 1 - expected.numpy()).max() < 0.01
    assert drawn.std() > 1
