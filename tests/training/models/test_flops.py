"""The structural count against torch's own, on the meta device: true shapes, and nothing computed."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

from training.models.config import DIT_SIZES, PIXART_SIZES, DitConfig, PixArtConfig
from training.models.dit import DiT
from training.models.flops import Flops, dit_flops, mfu, peak_bf16, pixart_flops
from training.models.pixart import PixArt

XL, TINY = PIXART_SIZES["XL/2"], PIXART_SIZES["tiny/2"]
SHORT = replace(XL, depth=2)
PER_BLOCK = replace(SHORT, modulation="per-block")
MICRO = replace(SHORT, micro_conditions=True, position_base=64, position_scale=2.0)
COMPRESSED = replace(SHORT, compressed_layers=(1,), text_tokens=300, qk_norm=True)
BATCH = 2


def convolution_backward(grad_out: Any, x: Any, weight: Any, *options: Any, out_shape: Any = None, **named: Any) -> int:
    """As torch counts it, but for one thing: of a grouped convolution it counts the weight's gradient as if the groups
    were one, which is wrong by the factor of their number. `options` ends with groups and the output mask."""
    *_, groups, mask = options
    forward = conv_flop_count(x, weight, grad_out)
    assert groups in (1, x[1])
    return forward * (bool(mask[0]) + bool(mask[1]))


def counted(run: Callable[[], Tensor]) -> tuple[int, int]:
    """Forward and backward a sample."""
    mapping = {torch.ops.aten.convolution_backward: convolution_backward}
    with torch.device("meta"), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        output = run()
        forward = counter.get_total_flops()
        torch.autograd.backward(output.sum())
    return forward // BATCH, (counter.get_total_flops() - forward) // BATCH


def pixart_run(config: PixArtConfig, height: int, width: int, text_tokens: int) -> Callable[[], Tensor]:
    with torch.device("meta"):
        model = PixArt(config)
        inputs = (
            torch.zeros(BATCH, config.in_channels, height, width),
            torch.ones(BATCH, dtype=torch.int64),
            torch.zeros(BATCH, text_tokens, config.caption_channels),
            torch.ones(BATCH, dtype=torch.int64),
            torch.ones(BATCH, 3),
        )
    return lambda: model(*inputs)


def dit_run(config: DitConfig, height: int, width: int) -> Callable[[], Tensor]:
    with torch.device("meta"):
        model = DiT(config)
        latents, whole = torch.zeros(BATCH, config.in_channels, height, width), torch.ones(BATCH, dtype=torch.int64)
    return lambda: model(latents, whole, whole)


def assert_agrees(flops: Flops, run: Callable[[], Tensor]) -> None:
    forward, backward = counted(run)
    assert flops.forward == pytest.approx(forward, rel=0.001)
    assert flops.backward == pytest.approx(backward, rel=0.001)
    assert flops.step == pytest.approx(forward + backward, rel=0.001)


@pytest.mark.parametrize(
    ("config", "height", "width", "text_tokens"),
    [
        (XL, 32, 32, 120),
        (SHORT, 32, 32, 8),
        (SHORT, 64, 64, 120),
        (SHORT, 48, 88, 40),
        (MICRO, 128, 128, 120),
        (PER_BLOCK, 32, 32, 120),
        (COMPRESSED, 64, 64, 304),
        (COMPRESSED, 128, 72, 120),
        (replace(COMPRESSED, compression=4, compressed_layers=(0, 1)), 64, 64, 120),
        (replace(TINY, caption_channels=64, learn_sigma=False, in_channels=16, mlp_ratio=2.5, patch=1), 8, 12, 8),
        (PIXART_SIZES["B/2"], 32, 32, 120),
    ],
)
def test_the_count_of_a_pixart_is_that_of_torch(
    config: PixArtConfig, height: int, width: int, text_tokens: int
) -> None:
    assert_agrees(pixart_flops(config, height, width, text_tokens), pixart_run(config, height, width, text_tokens))


@pytest.mark.parametrize(
    ("config", "height", "width"),
    [
        (DIT_SIZES["XL/2"], 32, 32),
        (replace(DIT_SIZES["XL/2"], depth=2), 64, 64),
        (replace(DIT_SIZES["S/2"], learn_sigma=False), 24, 40),
    ],
)
def test_the_count_of_a_dit_is_that_of_torch(config: DitConfig, height: int, width: int) -> None:
    assert_agrees(dit_flops(config, height, width), dit_run(config, height, width))


def test_the_counts_are_the_published_ones() -> None:
    """DiT-XL/2's "119 Gflops" are multiplications with additions (Peebles & Xie 2022, Table 4)."""
    assert dit_flops(DIT_SIZES["XL/2"], 32, 32).forward / 2e9 == pytest.approx(118.6, abs=0.3)
    assert dit_flops(DIT_SIZES["XL/2"], 64, 64).forward / 2e9 == pytest.approx(524.6, abs=1.0)


def test_checkpointed_blocks_are_counted_twice() -> None:
    config = replace(TINY, caption_channels=64)
    with torch.device("meta"):
        model = PixArt(config)
        latents, one = torch.zeros(BATCH, 4, 16, 16), torch.ones(BATCH, dtype=torch.int64)
        text = torch.zeros(BATCH, 16, 64)
    for block in model.blocks:
        inner = block.forward
        block.forward = lambda *inputs, inner=inner: checkpoint(inner, *inputs, use_reentrant=False)
    found = sum(counted(lambda: model(latents, one, text, one)))
    flops = pixart_flops(config, 16, 16, 16)
    assert flops.computed(fused_attention=False, checkpointed_blocks=True) == pytest.approx(found, rel=0.01)


def test_fused_attention_is_counted_as_torch_counts_its_kernels() -> None:
    flops, heads = pixart_flops(XL, 128, 128, 120), (1, 16)
    picture, text = (*heads, 4096, 72), (*heads, 120, 72)
    forward = XL.depth * sum(sdpa_flop_count(picture, keys, keys) for keys in (picture, text))
    backward = XL.depth * sum(sdpa_backward_flop_count(picture, picture, keys, keys) for keys in (picture, text))
    assert flops.attention == forward
    assert flops.computed(fused_attention=True, checkpointed_blocks=False) - flops.step == backward - 2 * forward


def test_utilisation_is_the_share_of_the_peak() -> None:
    assert mfu(flops=2e14, seconds=0.5, peak=1e15) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989.4),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
    ],
)
def test_the_peak_is_that_of_the_gpu_s_name(name: str, teraflops: float) -> None:
    peak = peak_bf16(name)
    assert peak is not None
    assert math.isclose(peak, teraflops * 1e12)


@pytest.mark.parametrize("name", ["NVIDIA A100-SXM4-40GB MIG 1g.5gb", "Tesla V100-SXM2-16GB", "Radeon", ""])
def test_no_peak_is_made_up(name: str) -> None:
    assert peak_bf16(name) is None
