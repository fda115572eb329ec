"""The paper's ablation in bytes: an adaLN in every block against adaLN-single. `python -m benchmarks.ablation_memory`

True XL/2 shapes at 256 px with 120 text tokens, bfloat16 autocast over float32 weights. Nothing is computed: the
forward pass runs on tensors without content, and what autograd keeps for the backward pass is counted, each storage
once.

    states  weights 4, AdamW 8, average 4 bytes a parameter; gradients, 4 more, come while activations go
    peak    the largest sum during the backward pass, block by block; workspaces of single operators are left out

The paper (section 3.3, Figure 6) says 833M and 29 GB against 611M and 23 GB, on V100 of 32 GB; it does not say at which
batch, nor whether activations are kept. Table 4 has 178 samples a GPU for that stage, the released configuration 32. On
a CUDA device the steps are also made, and what torch says that it held is printed beside.
"""

import argparse
import gc
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from training.config import EmaConfig, OptimiserConfig
from training.ema import Ema
from training.models.config import PIXART_SIZES, PixArtConfig
from training.models.pixart import PixArt
from training.optimiser import Optimiser

_GB = 1e9
_LATENT, _TEXT = 32, 120
_TOKENS = (_LATENT // 2) ** 2
_PAPER = {"per-block": (833, 29), "single": (611, 23)}


@dataclass(frozen=True, slots=True)
class Counted:
    """Of one step. Bytes."""

    parameters: int
    states: int  # weights, AdamW, average
    blocks: int  # that the backward pass needs of all blocks, all kept
    rest: int  # of everything else
    entry: int  # of one block's input

    def peak(self, depth: int, in_blocks: float, anew: bool) -> float:
        """The largest sum in the backward pass. `in_blocks`: the share of the parameters that lies in the blocks."""
        gradients, inner = 4 * self.parameters, self.blocks / depth
        sums = []
        for left in range(depth, -1, -1):  # blocks whose backward pass is not done
            kept = left * self.entry + min(left, 1) * inner if anew else left * inner
            done = in_blocks * (depth - left) / depth if left else 1.0
            sums.append(self.states + kept + self.rest * (left > 0) + done * gradients)
        return max(sums)


def main() -> None:
    """Count, print, and measure where there is a GPU."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--batches", type=int, nargs="*", default=[32, 178])
    options = command.parse_args()
    print(
        f"torch {torch.__version__}, {platform.machine()}, XL/2, {8 * _LATENT} px, {_TEXT} text tokens, bf16 autocast"
    )
    for batch in options.batches:
        for anew in (False, True):
            print(f"\n{batch} samples, {'blocks computed anew' if anew else 'activations kept'}")
            peaks = {name: _line(name, batch, anew) for name in _PAPER}
            saved = peaks["per-block"] - peaks["single"]
            ratio = peaks["single"] / peaks["per-block"]
            print(f"  single saves {saved / _GB:.1f} GB, is {ratio:.2f} of per-block (paper: 6 GB, {23 / 29:.2f})")
    if not torch.cuda.is_available():
        print("\nno CUDA device: the measured part was not run")


def _line(name: str, batch: int, anew: bool) -> float:
    config = replace(PIXART_SIZES["XL/2"], modulation=name)
    found = _count(config, batch)
    in_blocks = _block_parameters(config) / found.parameters
    peak = found.peak(config.depth, in_blocks, anew)
    activations = found.rest + (config.depth * found.entry + found.blocks / config.depth if anew else found.blocks)
    measured = f", measured {_measured(config, batch, anew) / _GB:5.1f} GB" if torch.cuda.is_available() else ""
    print(
        f"  {name:9}  {found.parameters / 1e6:6.1f}M parameters, states {found.states / _GB:5.1f} GB, gradients "
        f"{4 * found.parameters / _GB:4.1f} GB, activations {activations / _GB:5.1f} GB, peak {peak / _GB:5.1f} GB"
        f"{measured}   (paper: {_PAPER[name][0]}M, {_PAPER[name][1]} GB)"
    )
    return peak


def _count(config: PixArtConfig, batch: int) -> Counted:
    with FakeTensorMode():
        whole, parameters = _kept(config, batch)
        short, _ = _kept(replace(config, depth=1), batch)
        longer, _ = _kept(replace(config, depth=2), batch)
    blocks = (longer - short) * config.depth
    assert abs(whole - blocks - (short - blocks // config.depth)) < 1e-3 * whole  # all blocks keep the same
    entry = batch * _TOKENS * config.hidden * 4
    return Counted(parameters, 16 * parameters, blocks, whole - blocks, entry)


def _kept(config: PixArtConfig, batch: int) -> tuple[int, int]:
    """Bytes that autograd keeps of a forward pass, weights apart; and the number of parameters."""
    model = PixArt(config)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    # The CPU's autocast and its fused attention keep what CUDA's keep.
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = _forward(model, batch, "cpu")
    size = sum(storage.nbytes() for storage in kept.values())
    del output
    return size, sum(parameter.numel() for parameter in model.parameters())


def _block_parameters(config: PixArtConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in PixArt(config).blocks.parameters())


def _forward(model: Callable[..., Tensor], batch: int, device: str) -> Tensor:
    ones = torch.ones(batch, dtype=torch.int64, device=device)
    latents = torch.zeros(batch, 4, _LATENT, _LATENT, device=device)
    text = torch.zeros(batch, _TEXT, 4096, dtype=torch.float16, device=device)
    with torch.autocast(device, torch.bfloat16):
        return model(latents, ones, text, _TEXT * ones)


def _measured(config: PixArtConfig, batch: int, anew: bool) -> float:
    """The most that torch held at once in the second step; not a number where the device is too small."""
    torch.cuda.empty_cache()
    try:
        model = PixArt(config).cuda()
        model.checkpoint_activations = anew
        optimiser, average = Optimiser(model, OptimiserConfig()), Ema(model, EmaConfig())
        for step in range(2):
            torch.cuda.reset_peak_memory_stats()
            torch.autograd.backward(_forward(model, batch, "cuda").float().square().mean())
            average.update(step, optimiser.step(step).isfinite())
        return torch.cuda.max_memory_allocated()
    except torch.OutOfMemoryError:
        return float("nan")
    finally:
        gc.collect()


if __name__ == "__main__":
    main()
