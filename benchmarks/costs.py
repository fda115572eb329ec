"""What a data set of N pictures costs, in bytes and GPU hours, by arithmetic: `python -m benchmarks.costs [--gpu A100]`

Nothing is run but the counting of operations on the models' true shapes. Bytes are exact for the mean lengths named;
hours rest on the shares of a GPU's peak in `SHARES`, which are assumptions, printed with the result. `--estimate` of
each command measures the real figure on the real data before a job; this is for the plan before that.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from diffusers import AutoencoderKL
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5EncoderModel

from curation.features.estimate import embedding_bytes, member_bytes
from training.models.config import PIXART_SIZES
from training.models.flops import peak_bf16, pixart_flops

DENSE_TOKENS: Final = 98  # of a LLaVA caption, cut at 120: docs/LOG.md, text as int8
ALT_TOKENS: Final = 18  # of a LAION alt text
SHARES: Final = {"matrix products": 0.40, "convolutions": 0.30, "prefill": 0.50, "bandwidth": 0.70}
BANDWIDTH: Final = {"A100": 2.04e12, "H100": 3.35e12, "H200": 4.8e12}  # bytes a second, of the 80 GB SXM cards

_COUNTS: Final = (1_000_000, 10_000_000, 100_000_000)
_T5_XXL: Final = T5Config(
    d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu", vocab_size=32128
)
_VAE_WIDTHS: Final = (128, 256, 512, 512)


@dataclass(frozen=True, slots=True)
class Captioner:
    """LLaVA-1.5-7B in half precision: a roofline of reading the picture, then of drawing one token after the other."""

    parameters: float = 7.06e9
    prompt_tokens: int = 621  # 576 of the picture
    kv_bytes: float = 0.524e6  # keys and values of a token: 32 layers x 2 x 4,096 x 2 bytes
    rows: int = 140  # at a time: what 80 GB hold beside the weights
    tokens: int = 130  # drawn for a caption

    def seconds(self, peak: float, bandwidth: float) -> float:
        """GPU seconds of a picture."""
        prefill = 2 * self.parameters * self.prompt_tokens / (peak * SHARES["prefill"])
        past = self.kv_bytes * (self.prompt_tokens + self.tokens / 2)
        step = 2 * self.parameters / self.rows + past
        return prefill + self.tokens * step / (bandwidth * SHARES["bandwidth"])


def main() -> None:
    """Print both tables."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--gpu", choices=tuple(BANDWIDTH), default="H100")
    options = command.parse_args()
    peak, bandwidth = peak_bf16(options.gpu), BANDWIDTH[options.gpu]
    if peak is None:
        raise SystemExit(f"{options.gpu}: its peak is not in training/models/flops.py")
    print("bytes a picture, and of all pictures")
    _table(bytes_a_picture(), _size)
    print(f"\n{options.gpu} hours of all pictures, at these shares of the peak: {SHARES}")
    _table(seconds_a_picture(peak, bandwidth), _hours)
    print(f"\n{options.gpu} days a stage of the paper's Table 4, at {SHARES['matrix products']:.0%} of the peak")
    for name, resolution, samples in (
        ("align", 256, 1709e6),
        ("aesthetic-256", 256, 1025e6),
        ("aesthetic-512", 512, 256e6),
        ("aesthetic-1024", 1024, 6.1e6),
    ):
        days = samples * step_flops(resolution) / (peak * SHARES["matrix products"]) / 86400
        print(f"{name:<16}{samples / 1e6:>8,.1f}M samples seen{days:>8,.1f} days")


def bytes_a_picture() -> dict[str, float]:
    """What the trainer reads, with tar headers and the index."""
    sizes: dict[str, float] = {}
    for resolution in (256, 512, 1024):
        cells = (resolution // 8) ** 2
        sizes[f"latents {resolution} px, mean and deviation fp16"] = member_bytes(128 + 2 * 4 * cells * 2)
    for name, tokens in (("dense captions", DENSE_TOKENS), ("alt text", ALT_TOKENS)):
        for codec in ("fp16", "int8"):
            sizes[f"T5-XXL {codec}, {name} of {tokens} tokens"] = member_bytes(embedding_bytes(tokens, 4096, codec))
    return sizes


def seconds_a_picture(peak: float, bandwidth: float) -> dict[str, float]:
    """GPU seconds of each stage for one picture."""
    out = {"captions, LLaVA-1.5-7B, 130 tokens": Captioner().seconds(peak, bandwidth)}
    for resolution in (256, 512, 1024):
        out[f"latents {resolution} px"] = vae_flops(resolution) / (peak * SHARES["convolutions"])
    out[f"T5-XXL, {DENSE_TOKENS} tokens"] = t5_flops(DENSE_TOKENS) / (peak * SHARES["matrix products"])
    for resolution in (256, 512, 1024):
        out[f"one epoch of XL/2 at {resolution} px"] = step_flops(resolution) / (peak * SHARES["matrix products"])
    return out


def step_flops(resolution: int) -> float:
    """Operations of PixArt XL/2's step on one sample with 120 tokens of text."""
    return pixart_flops(PIXART_SIZES["XL/2"], resolution // 8, resolution // 8, 120).step


def vae_flops(resolution: int) -> int:
    """Operations of Stable Diffusion's encoder on one picture."""
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=_VAE_WIDTHS,
            layers_per_block=2,
            latent_channels=4,
        )
        picture = torch.zeros(1, 3, resolution, resolution)
    return _counted(lambda: vae.encode(picture))


def t5_flops(tokens: int) -> int:
    """Operations of T5-XXL's encoder on one caption."""
    with torch.device("meta"):
        encoder = T5EncoderModel(_T5_XXL)
        ids = torch.zeros(1, tokens, dtype=torch.long)
    return _counted(lambda: encoder(input_ids=ids))


def _counted(run: Callable[[], object]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def _table(rows: dict[str, float], shown: Callable[[float], str]) -> None:
    print(f"{'':<48}{'one':>12}" + "".join(f"{count:>14,}" for count in _COUNTS))
    for name, value in rows.items():
        one = f"{value:,.0f} B" if value >= 1 else f"{value * 1000:.2f} ms"
        print(f"{name:<48}{one:>12}" + "".join(f"{shown(value * count):>14}" for count in _COUNTS))


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f} h" if hours < 10 else f"{hours:,.0f} h"


def _size(size: float) -> str:
    return f"{size / 1e12:,.2f} TB" if size >= 1e12 else f"{size / 1e9:,.1f} GB"


if __name__ == "__main__":
    main()
