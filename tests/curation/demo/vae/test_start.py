import torch
from diffusers import AutoencoderKL

from curation.demo.vae.start import start_from_mean_colours


def test_the_start_tells_each_cell_its_mean_colour() -> None:
    torch.manual_seed(0)
    blocks = ("DownEncoderBlock2D",) * 4
    model = AutoencoderKL(
        down_block_types=blocks,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=2,
    )
    colours = torch.rand(16, 3, 4, 4) * 2 - 1
    pixels = torch.nn.functional.interpolate(colours, scale_factor=8)
    start_from_mean_colours(model, pixels)
    with torch.no_grad():
        told = model.encode(pixels).latent_dist.mode()[:, :3]
    left = (told - colours).square().mean() / colours.square().mean()
    assert left < 0.3  # of random colours: by no means what a random encoder tells
