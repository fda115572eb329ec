import math
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.errors import UserError
from training.models import packing
from training.models.attention import attention, masked_backends
from training.models.config import PixArtConfig
from training.models.packing import PaddedText, check_attention, key_mask, pack_text, padding_bias
from training.models.pixart import PixArt

Build = Callable[[PixArtConfig], PixArt]
HEADS, CUDA = 3, torch.cuda.is_available()
on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a CUDA device")]


def reference(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Attention sample by sample and head by head, over the true rows alone."""
    samples = []
    for b, length in enumerate(lengths):
        heads = []
        for q, k, v in zip(*(part[b].chunk(HEADS, dim=-1) for part in (query, key, value)), strict=True):
            scores = q @ k[:length].T / math.sqrt(q.shape[-1])
            heads.append(scores.softmax(-1) @ v[:length])
        samples.append(torch.cat(heads, dim=-1))
    return torch.stack(samples)


def varlen_on_cpu(query: Tensor, key: Tensor, value: Tensor, of_query: Tensor, of_key: Tensor, *most: int) -> Tensor:
    """What torch's varlen kernel computes, sequence by sequence; other rows' gradients are NaN, as they may be there.

    All [rows, heads, d]; `of_query` and `of_key` are where sequences start and the last one ends.
    """
    out = []
    for b in range(len(of_query) - 1):
        q, k = slice(*of_query[b : b + 2].tolist()), slice(*of_key[b : b + 2].tolist())
        assert q.stop - q.start <= most[0]
        assert k.stop - k.start <= most[1]
        parts = (query[q], key[k], value[k])
        out.append(F.scaled_dot_product_attention(*(part.transpose(0, 1) for part in parts)).transpose(0, 1))
    for part in (key, value):
        spoil = torch.zeros_like(part)
        spoil[int(of_key[-1]) :] = torch.nan
        part.register_hook(lambda gradient, spoil=spoil: gradient + spoil)
    assert int(of_query[-1]) == len(query)
    return torch.cat(out)


def tensors(keys: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 10, 24), (4, keys, 24), (4, keys, 24)]
    return [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]


def value_and_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def padded(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    mask = key_mask(torch.tensor(lengths, device=query.device), key.shape[1])
    return attention(query, key, value, HEADS, PaddedText(padding_bias(mask, torch.float32)))


def packed(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], kernel: str = "varlen") -> Tensor:
    on_device = torch.tensor(lengths, device=query.device)
    both, layout = pack_text(torch.cat([key, value], dim=-1), on_device, lengths, query.shape[1], 12, kernel)
    return attention(query, *both.chunk(2, dim=-1), HEADS, layout)


RAGGED = [[1, 5, 12, 7], [12, 12, 12, 12], [1, 1, 1, 1]]


def assert_equals_a_plain_loop(form: Callable[..., Tensor], lengths: list[int]) -> None:
    inputs = tensors(12)
    ours = value_and_gradients(form(*inputs, lengths), inputs)
    loop = value_and_gradients(reference(*inputs, lengths), inputs)
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_self_attention_equals_a_plain_loop_forward_and_backward() -> None:
    inputs = tensors(10)
    ours = value_and_gradients(attention(*inputs, HEADS), inputs)
    loop = value_and_gradients(reference(*inputs, [10] * 4), inputs)
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", RAGGED)
def test_attention_to_padded_text_equals_a_plain_loop_forward_and_backward(lengths: list[int]) -> None:
    assert_equals_a_plain_loop(padded, lengths)


@pytest.mark.parametrize("lengths", RAGGED)
def test_attention_to_packed_text_equals_a_plain_loop_forward_and_backward(
    lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "varlen_attn", varlen_on_cpu)
    assert_equals_a_plain_loop(packed, lengths)


@pytest.mark.parametrize("lengths", RAGGED)
def test_the_mask_of_xformers_equals_a_plain_loop_forward_and_backward(
    lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels are for CUDA; here its mask is written out and given to torch's attention."""
    pytest.importorskip("xformers")

    def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Any) -> Tensor:
        bias = mask.materialize((len(query), len(key)), torch.float32)
        parts = (part.transpose(0, 1) for part in (query, key, value))
        return F.scaled_dot_product_attention(*parts, attn_mask=bias).transpose(0, 1)

    monkeypatch.setattr(packing, "_xformers_attention", written_out)
    assert_equals_a_plain_loop(lambda *inputs: packed(*inputs, "xformers"), lengths)


def test_packed_text_has_few_shapes_and_holds_every_true_row_once() -> None:
    text = torch.arange(1, 1 + 3 * 40.0).reshape(3, 40, 1)
    lengths = [1, 40, 13]
    rows, layout = pack_text(text, torch.tensor(lengths), None, 10, 120, "varlen")
    true = torch.cat([text[b, :length] for b, length in enumerate(lengths)])
    assert torch.equal(rows[:54], true)
    assert len(rows) == 3 * 32  # the mean of 18 does not fit into 16
    assert not rows[54:].any()
    assert layout.unused.squeeze(1).tolist() == [False] * 54 + [True] * 42
    assert layout.text_starts.tolist() == [0, 1, 41, 54]
    assert layout.query_starts.tolist() == [0, 10, 20, 30]


def test_a_model_over_packed_text_gives_the_output_and_the_gradients_of_one_over_padded_text(
    small_config: PixArtConfig, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "varlen_attn", varlen_on_cpu)
    model = build(small_config)
    inputs = (
        torch.randn(3, 4, 8, 6),
        torch.tensor([0, 500, 999]),
        torch.randn(3, 48, 20),
        torch.tensor([1, 48, 7]),
    )
    found = []
    for name in ("sdpa", "varlen"):
        model.attention = name
        model.zero_grad()
        out = model(*inputs)
        out.square().mean().backward()
        found.append([out.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_no_gradient_reaches_padded_rows() -> None:
    inputs = tensors(12)
    _, _, for_key, for_value = value_and_gradients(padded(*inputs, [3, 1, 12, 7]), inputs)
    assert not for_key[0, 3:].any()
    assert not for_value[0, 3:].any()


def test_the_mask_counts_true_rows() -> None:
    assert key_mask(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


def test_on_cuda_the_masked_call_may_use_neither_cudnn_nor_flash() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled()
    with masked_backends(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert before == (torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cuda.flash_sdp_enabled())


def test_a_back_end_that_cannot_run_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.importlib.util, "find_spec", lambda name: None)
    for name, device, precision, words in (
        ("flash", "cuda", "bf16", "'flash' is unknown"),
        ("varlen", "cpu", "fp32", "runs on CUDA only"),
        ("xformers", "cpu", "fp32", "runs on CUDA only"),
        ("varlen", "cuda", "fp32", "--precision bf16"),
        ("xformers", "cuda", "bf16", "not installed"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            check_attention(name, torch.device(device), precision)
        assert "\n" not in str(caught.value)
    check_attention("sdpa", torch.device("cpu"), "fp32")
    check_attention("varlen", torch.device("cuda"), "bf16")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param("sdpa", torch.float32, marks=on_gpu),
        pytest.param("sdpa", torch.bfloat16, marks=on_gpu),
        pytest.param("varlen", torch.bfloat16, marks=on_gpu),
        pytest.param("xformers", torch.bfloat16, marks=on_gpu),
    ],
)
@pytest.mark.parametrize("lengths", RAGGED)
def test_each_back_end_on_cuda_equals_a_plain_loop_forward_and_backward(
    name: str, dtype: torch.dtype, lengths: list[int]
) -> None:
    if name == "xformers":
        pytest.importorskip("xformers")
    inputs = tensors(12, "cuda", dtype)
    exact = [t.detach().float().requires_grad_() for t in inputs]
    out = padded(*inputs, lengths) if name == "sdpa" else packed(*inputs, lengths, name)
    ours = value_and_gradients(out, inputs)
    loop = value_and_gradients(reference(*exact, lengths), exact)
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=3e-2, atol=3e-2)


def test_an_xformers_without_attention_is_told_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("xformers", "xformers.ops"):
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(UserError, match=r"no attention here .*memory_efficient_attention.* or use sdpa"):
        check_attention("xformers", torch.device("cuda"), "bf16")
