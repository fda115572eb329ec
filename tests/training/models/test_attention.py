import math

import pytest
import torch
from torch import Tensor

from training.models.attention import cross_attention, key_mask, masked_backends, padding_bias, self_attention


def reference(query: Tensor, key: Tensor, value: Tensor, lengths: list[int]) -> Tensor:
    """Attention sample by sample and head by head, over the true rows alone."""
    samples = []
    for b, length in enumerate(lengths):
        heads = []
        for h in range(query.shape[1]):
            scores = query[b, h] @ key[b, h, :length].T / math.sqrt(query.shape[-1])
            heads.append(scores.softmax(-1) @ value[b, h, :length])
        samples.append(torch.stack(heads))
    return torch.stack(samples)


def tensors(keys: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 10, 8), (4, 3, keys, 8), (4, 3, keys, 8)]
    return [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]


def value_and_gradients(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def test_self_attention_equals_a_plain_loop_forward_and_backward() -> None:
    inputs = tensors(10)
    ours = value_and_gradients(self_attention(*inputs), inputs)
    loop = value_and_gradients(reference(*inputs, [10] * 4), inputs)
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [[1, 5, 12, 7], [12, 12, 12, 12], [1, 1, 1, 1]])
def test_cross_attention_over_ragged_lengths_equals_a_plain_loop_forward_and_backward(lengths: list[int]) -> None:
    inputs = tensors(12)
    bias = padding_bias(key_mask(torch.tensor(lengths), 12), torch.float32)
    ours = value_and_gradients(cross_attention(*inputs, bias), inputs)
    loop = value_and_gradients(reference(*inputs, lengths), inputs)
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_no_gradient_reaches_padded_rows() -> None:
    inputs = tensors(12)
    bias = padding_bias(key_mask(torch.tensor([3, 1, 12, 7]), 12), torch.float32)
    _, _, for_key, for_value = value_and_gradients(cross_attention(*inputs, bias), inputs)
    assert not for_key[0, :, 3:].any()
    assert not for_value[0, :, 3:].any()


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_attention_on_cuda_equals_a_plain_loop_forward_and_backward(dtype: torch.dtype) -> None:
    lengths = [1, 5, 12, 7]
    inputs = tensors(12, "cuda", dtype)
    exact = [t.detach().float().requires_grad_() for t in inputs]
    bias = padding_bias(key_mask(torch.tensor(lengths, device="cuda"), 12), torch.float32)
    ours = value_and_gradients(cross_attention(*inputs, bias), inputs)
    loop = value_and_gradients(reference(*exact, lengths), exact)
    for a, b in zip(ours, loop, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=3e-2, atol=3e-2)
