"""Where the training of the small autoencoder starts: at a coder that already gives each cell its mean colours.

From the library's random weights it learns for thousands of steps what the mean colour of a cell is. Here the way
through the blocks is open from the start, and the last layer of encoder and decoder is solved for by least squares.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F

_CELL: Final = 8  # pixels a latent cell
_FIRST_LOGVAR: Final = -6.0  # of the posterior
_CONTRAST_SCALE: Final = 2.0  # brings the contrast of a cell to the range of its colours
_RIDGE: Final = 1e-6


@torch.no_grad()
def start_from_mean_colours(model: Any, pixels: torch.Tensor) -> None:
    """Set the weights of an `AutoencoderKL` of four channels so that three tell the mean colour of each cell of
    `pixels` [B, 3, H, W], and the fourth how far its pixels are from that mean.

    Residual branches begin at zero. What leads around them is random, and in the decoder goes from a pixel to the one
    below it and to no neighbour, so that what cells say stays apart.
    """
    for name, module in model.named_modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.zero_()
        elif isinstance(module, nn.Conv2d) and not name.endswith(("conv1", "conv2")):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
            if name.startswith("decoder") and module.kernel_size == (3, 3):
                middle = torch.randn(module.weight.shape[:2]) / math.sqrt(module.in_channels)
                module.weight.zero_()
                module.weight[:, :, 1, 1] = middle
    for conv in (model.quant_conv, model.post_quant_conv):
        conv.weight.copy_(torch.eye(len(conv.weight))[:, :, None, None])
        conv.bias.zero_()
    last = model.encoder.conv_out
    last.weight[4:] = 0
    last.bias[4:] = _FIRST_LOGVAR
    means = F.avg_pool2d(pixels, _CELL)
    off = (pixels - F.interpolate(means, scale_factor=_CELL)).abs().mean(1, keepdim=True)
    wanted = torch.cat([means, _CONTRAST_SCALE * F.avg_pool2d(off, _CELL)], 1)
    _solve(last, _input_of(last, lambda: model.encode(pixels)), wanted)
    latents = model.encode(pixels).latent_dist.mode()
    last = model.decoder.conv_out
    _solve(last, _input_of(last, lambda: model.decode(latents)), pixels)


def _input_of(module: nn.Module, run: Callable[[], Any]) -> torch.Tensor:
    """What `module` is given while `run` runs."""
    given: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: given.append(arguments[0]))
    run()
    handle.remove()
    return given[0]


def _solve(conv: nn.Conv2d, given: torch.Tensor, wanted: torch.Tensor) -> None:
    """Set the first outputs of a 3 × 3 convolution so that `given` [B, C, H, W] gives `wanted` [B, K, H, W]."""
    size = conv.kernel_size[0]
    rows = F.unfold(given, size, padding=size // 2).transpose(1, 2).flatten(0, 1)
    rows = F.pad(rows, (0, 1), value=1.0).double()
    values = wanted.permute(0, 2, 3, 1).flatten(0, 2).double()
    gram = rows.T @ rows + _RIDGE * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype)
    found = torch.linalg.solve(gram, rows.T @ values).T.float()
    outputs = len(found)
    conv.weight[:outputs] = found[:, :-1].reshape(outputs, conv.in_channels, size, size)
    conv.bias[:outputs] = found[:, -1]  # type: ignore[index]  # our convolutions have one
