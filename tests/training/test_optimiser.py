import pytest
import torch
from torch import nn

from training.config import OptimiserConfig
from training.optimiser import Optimiser, learning_rate


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 2))


def backward(net: nn.Module, seed: int, scale: float = 1.0) -> None:
    torch.manual_seed(seed)
    (net(torch.randn(5, 4)).square().sum() * scale).backward()


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def test_the_rate_rises_over_the_warm_up_and_then_stays() -> None:
    config = OptimiserConfig(lr=1e-3, warmup_steps=4)
    assert [learning_rate(config, step) for step in range(6)] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])
    assert learning_rate(OptimiserConfig(lr=1e-3, warmup_steps=0), 0) == 1e-3


def test_steps_agree_with_plain_adamw_and_clipping() -> None:
    config = OptimiserConfig(lr=1e-2, warmup_steps=0, clip=0.5)
    ours, theirs = model(), model()
    optimiser = Optimiser(ours, config)
    plain = torch.optim.AdamW(theirs.parameters(), 1e-2, (0.9, 0.999), 1e-10, 0.03)
    for step in range(4):
        backward(ours, step)
        norm = optimiser.step(step)
        backward(theirs, step)
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        plain.step()
        plain.zero_grad()
        torch.testing.assert_close(norm, expected)
    for mine, other in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_moments(scale: float) -> None:
    net = model()
    optimiser = Optimiser(net, OptimiserConfig(lr=1e-2))
    backward(net, 0)
    optimiser.step(0)
    before, state = weights(net), {name: t.clone() for name, t in optimiser.state_dict().items()}
    backward(net, 1, scale)
    assert not optimiser.step(1).isfinite()
    assert all(torch.equal(a, b) for a, b in zip(weights(net), before, strict=True))
    assert all(torch.equal(t, state[name]) for name, t in optimiser.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_state_taken_over_goes_on_bitwise() -> None:
    config = OptimiserConfig(lr=1e-2)
    first = model()
    before = Optimiser(first, config)
    backward(first, 0)
    before.step(0)
    second = model()
    second.load_state_dict(first.state_dict())
    after = Optimiser(second, config)
    after.load_state_dict({name: t.clone() for name, t in before.state_dict().items()})
    for net, optimiser in ((first, before), (second, after)):
        for step in (1, 2):
            backward(net, step)
            optimiser.step(step)
    assert all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
