"""A training step of ours against diffusers' model in a plain loop. `python -m benchmarks.train_step`

Same weights, shapes and precision, forward, backward and fused AdamW, in turns in one process; the ratio is theirs over
ours in each turn, so above 1 we are faster. On a CPU: one thread, float32, eager, CPU seconds, XL/2's width with few of
its blocks. On CUDA: XL/2 whole, bfloat16 autocast, wall seconds, images a second and MFU.

Then ours alone against itself: text padded to a bucket of lengths or to the longest there can be, packed text, compiled
blocks (`--compile`; minutes on a CPU), activations computed anew, and what averages and metrics add to a step.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import diffusers
import torch
from diffusers import PixArtTransformer2DModel
from torch import Tensor, nn

from training.config import EmaConfig, OptimiserConfig
from training.ema import Averages
from training.models.compiled import compile_blocks
from training.models.config import PIXART_SIZES, PixArtConfig
from training.models.diffusers_keys import diffusers_config, to_diffusers
from training.models.flops import mfu, peak_bf16, pixart_flops
from training.models.pixart import PixArt
from training.models.text_lengths import padded_length
from training.optimiser import Optimiser

ON_CUDA: Final = torch.cuda.is_available()
DEVICE: Final = torch.device("cuda" if ON_CUDA else "cpu")
_LONGEST: Final = 120
_LENGTHS: Final = {"dense": (60, 120), "alt": (8, 32)}  # LLaVA's captions are long, alt text is short; evenly drawn


@dataclass(frozen=True, slots=True)
class Case:
    """What a step is made on."""

    name: str
    config: PixArtConfig
    batch: int
    height: int  # of the latents
    width: int


def cases() -> list[Case]:
    """Those of this machine."""
    xl = PIXART_SIZES["XL/2"]
    high = replace(xl, position_base=32)
    if ON_CUDA:
        return [Case("XL/2, 256 px", xl, 64, 32, 32), Case("XL/2, 512 px", high, 16, 64, 64)]
    return [
        Case("XL/2 wide, 2 blocks, 256 px", replace(xl, depth=2), 2, 32, 32),
        Case("XL/2 wide, 1 block, 512 px bucket 448x576", replace(high, depth=1), 1, 56, 72),
        Case("S/2, 4 blocks, 256 px", replace(PIXART_SIZES["S/2"], depth=4), 4, 32, 32),
        Case("tiny/2, 128 px", replace(PIXART_SIZES["tiny/2"], position_base=8), 8, 16, 16),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """One batch, padded to `text.shape[1]`."""

    latents: Tensor
    timesteps: Tensor
    text: Tensor
    lengths: Tensor
    on_host: tuple[int, ...]


def draw(case: Case, lengths: Sequence[int], padded: int) -> Inputs:
    """Random latents and text of these true lengths."""
    g = torch.Generator().manual_seed(0)
    text = torch.randn(case.batch, padded, case.config.caption_channels, generator=g)
    latents = torch.randn(case.batch, case.config.in_channels, case.height, case.width, generator=g)
    timesteps = torch.randint(0, 1000, (case.batch,), generator=g)
    moved = (tensor.to(DEVICE) for tensor in (latents, timesteps, text, torch.tensor(lengths)))
    return Inputs(*moved, tuple(lengths))


class Ours:
    """Our model, called as the trainer does, with the trainer's optimiser."""

    def __init__(self, config: PixArtConfig) -> None:
        torch.manual_seed(0)
        self.model = PixArt(config).to(DEVICE)
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, std=0.02)  # at its own start most of it has no gradient
        self.optimiser = Optimiser(self.model, OptimiserConfig())
        self.steps = 0

    def step(self, inputs: Inputs) -> Tensor:
        """One step; its loss."""
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=ON_CUDA):
            output = self.model(inputs.latents, inputs.timesteps, inputs.text, inputs.lengths, None, inputs.on_host)
        loss = output.float().square().mean()
        loss.backward()
        self.optimiser.step(self.steps)
        self.steps += 1
        return loss.detach()


class Theirs:
    """diffusers' model with the same weights, and the same rule of learning in torch's own words."""

    def __init__(self, ours: Ours) -> None:
        self.model = PixArtTransformer2DModel(**diffusers_config(ours.model.config))
        self.model.load_state_dict(to_diffusers({n: t.cpu() for n, t in ours.model.state_dict().items()}))
        self.model.to(DEVICE).train()
        learn = OptimiserConfig()
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=learn.lr, weight_decay=learn.weight_decay, eps=learn.eps, fused=True
        )

    def step(self, inputs: Inputs) -> Tensor:
        """One step; its loss."""
        mask = torch.arange(inputs.text.shape[1], device=DEVICE) < inputs.lengths[:, None]
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=ON_CUDA):
            output = self.model(
                inputs.latents,
                encoder_hidden_states=inputs.text,
                timestep=inputs.timesteps,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                encoder_attention_mask=mask.to(inputs.text.dtype),
            ).sample
        loss = output.float().square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), OptimiserConfig().clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.detach()


def seconds(act: Callable[[], object]) -> float:
    """CPU seconds of this process; wall seconds to the end of the work on CUDA."""
    if not ON_CUDA:
        start = time.process_time()
        act()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    act()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(base: Callable[[], object], other: Callable[[], object], turns: int) -> tuple[float, list[float]]:
    """Median seconds of `base`, and in each turn how many times as long `other` took."""
    base(), other()
    took, ratios = [], []
    for turn in range(turns):
        if turn % 2:
            a, b = seconds(base), seconds(other)
        else:
            b, a = seconds(other), seconds(base)
        took.append(a)
        ratios.append(b / a)
    return statistics.median(took), ratios


def told(ratios: list[float]) -> str:
    """Median and the middle half."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (middle half {low:.3f} to {high:.3f}, {len(ratios)} turns)"


def rate(case: Case, took: float, text_tokens: int) -> str:
    """Seconds, images a second, and MFU where the device's peak is known."""
    said = f"{took:.3f} s a step, {case.batch / took:.2f} images/s"
    peak = peak_bf16(torch.cuda.get_device_name()) if ON_CUDA else None
    if peak is None:
        return said
    flops = case.batch * pixart_flops(case.config, case.height, case.width, text_tokens).step
    return f"{said}, MFU {mfu(flops, took, peak):.1%}"


def lengths_of(kind: str, batch: int) -> list[int]:
    """True lengths of a batch of captions."""
    low, high = _LENGTHS[kind]
    g = torch.Generator().manual_seed(1)
    return torch.randint(low, high + 1, (batch,), generator=g).tolist()


def against_diffusers(case: Case, turns: int) -> None:
    """Both on the same padded text."""
    ours = Ours(case.config)
    theirs = Theirs(ours)
    inputs = draw(case, lengths_of("dense", case.batch), _LONGEST)
    a, b = ours.step(inputs).item(), theirs.step(inputs).item()
    assert abs(a - b) <= (0.02 if ON_CUDA else 1e-5) * abs(b), (a, b)
    took, ratios = in_turns(lambda: ours.step(inputs), lambda: theirs.step(inputs), turns)
    print(f"{case.name}, batch {case.batch}: {rate(case, took, _LONGEST)}; diffusers / ours {told(ratios)}", flush=True)


def against_itself(case: Case, turns: int, compiled: bool) -> None:
    """What each means of speed or memory is worth, on the same samples."""
    print(f"\n{case.name}, batch {case.batch}, ours against ours:")
    for kind in _LENGTHS:
        lengths = lengths_of(kind, case.batch)
        ours, short, whole = Ours(case.config), padded_length(max(lengths)), draw(case, lengths, _LONGEST)
        inputs = draw(case, lengths, short)
        took, ratios = in_turns(lambda: ours.step(inputs), lambda: ours.step(whole), turns)  # noqa: B023 - called at once
        print(f"  {kind} captions: padded to {_LONGEST} / to a bucket ({short}) {told(ratios)}", flush=True)
        mean = padded_length(-(-sum(lengths) // len(lengths)))
        by_length = [pixart_flops(case.config, case.height, case.width, n).step for n in (_LONGEST, short, mean)]
        print(
            f"    by operations: {by_length[0] / by_length[1]:.3f}; packed ({mean}) {by_length[0] / by_length[2]:.3f}"
        )
        if ON_CUDA:
            packed = Ours(case.config)
            packed.model.attention = "varlen"
            took, ratios = in_turns(lambda: packed.step(inputs), lambda: ours.step(inputs), turns)  # noqa: B023 - called at once
            print(f"    padded to a bucket / packed {told(ratios)}, {rate(case, took, mean)}", flush=True)
    again = Ours(case.config)
    again.model.checkpoint_activations = True
    _, ratios = in_turns(lambda: ours.step(inputs), lambda: again.step(inputs), turns)
    print(f"  activations computed anew / kept {told(ratios)}", flush=True)
    _share_of_averages(ours, inputs, turns)
    if compiled:
        _compiled(case, ours, turns)
    else:
        print("  compiled: not run, see --compile")


def _share_of_averages(ours: Ours, inputs: Inputs, turns: int) -> None:
    averages, finite = Averages(ours.model, EmaConfig()), torch.ones((), dtype=torch.bool, device=DEVICE)
    step = statistics.median(seconds(lambda: ours.step(inputs)) for _ in range(turns))
    added = statistics.median(seconds(lambda: averages.update(5, 5, 6, finite)) for _ in range(turns))
    print(f"  the average adds {added / step:.2%} of a step (goal on a GPU: 1.5 % with metrics)", flush=True)


def _compiled(case: Case, plain: Ours, turns: int) -> None:
    compiled = Ours(case.config)
    batches = [draw(case, lengths_of(kind, case.batch), padded_length(_LENGTHS[kind][1])) for kind in _LENGTHS]
    compile_blocks(compiled.model, len(batches))
    start = time.perf_counter()
    for batch in batches:
        compiled.step(batch)
    warm = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(f"  compiled: {time.perf_counter() - start:.0f} s for {len(batches)} shapes, {warm} programs", flush=True)
    took, ratios = in_turns(lambda: compiled.step(batches[0]), lambda: plain.step(batches[0]), turns)
    for batch in batches:
        compiled.step(batch)
    later = torch._dynamo.utils.counters["stats"]["unique_graphs"] - warm
    said = rate(case, took, batches[0].text.shape[1])
    print(f"    eager / compiled {told(ratios)}, {said}; programs after warm-up: {later}", flush=True)


def main() -> None:
    """Run and print."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--turns", type=int, default=12)
    command.add_argument("--compile", action="store_true")
    options = command.parse_args()
    torch.set_num_threads(1)
    device = torch.cuda.get_device_name() if ON_CUDA else f"{platform.machine()}, {os.cpu_count()} cores, one thread"
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}, {device}")
    found = cases()
    for case in found:
        against_diffusers(case, options.turns)
    against_itself(found[0], options.turns, options.compile)
    if not ON_CUDA:
        print("\nno CUDA device: images/s and MFU on a GPU, varlen and the share of averages there were not run")


if __name__ == "__main__":
    main()
