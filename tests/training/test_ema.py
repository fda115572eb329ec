from collections.abc import Callable

import pytest
import torch
from torch import nn

from training.config import EmaConfig
from training.ema import Average, Ema, PowerEma

TAKEN, SKIPPED = torch.tensor(True), torch.tensor(False)


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(40)))
    net.register_buffer("y_embedding", torch.randn(3))
    net.register_buffer("scratch", torch.randn(3), persistent=False)
    return net


def test_the_average_follows_its_formula() -> None:
    net = model()
    ema = Ema(net, EmaConfig(decay=0.9, warmup=False))
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    for step in range(5):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ema.update(step, TAKEN)
        expected = {name: 0.9 * expected[name] + 0.1 * p.detach() for name, p in net.named_parameters()}
    for name, averaged in expected.items():
        torch.testing.assert_close(ema.state_dict()[name], averaged)


def test_warm_up_lets_the_first_updates_count_more() -> None:
    ema = Ema(model(), EmaConfig(decay=0.9999, warmup=True))
    assert ema.decay(0) == pytest.approx(0.1)
    assert ema.decay(90) == pytest.approx(0.91)
    assert ema.decay(10**7) == 0.9999


def test_a_skipped_step_moves_nothing() -> None:
    net = model()
    ema = Ema(net, EmaConfig(decay=0.5, warmup=False))
    before = {name: t.clone() for name, t in ema.state_dict().items()}
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    ema.update(0, SKIPPED)
    assert all(torch.equal(t, before[name]) for name, t in ema.state_dict().items())


def test_all_tensors_at_once_give_the_same_bits_as_one_after_the_other() -> None:
    net = model()
    ema = Ema(net, EmaConfig(decay=0.9, warmup=False))
    expected = {name: t.clone() for name, t in ema.state_dict().items()}
    for step, taken in enumerate((TAKEN, SKIPPED, TAKEN)):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        ema.update(step, taken)
        for name, p in net.named_parameters():
            expected[name].lerp_(p.detach(), taken * (1 - 0.9))
    assert all(torch.equal(t, expected[name]) for name, t in ema.state_dict().items())


def test_state_goes_into_another_average_by_name() -> None:
    net = model()
    source, target = Ema(net, EmaConfig()), Ema(model(), EmaConfig())
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    source.update(0, TAKEN)
    target.load_state_dict(source.state_dict())
    assert all(torch.equal(t, source.state_dict()[name]) for name, t in target.state_dict().items())


@pytest.mark.parametrize("kind", [lambda net: Ema(net, EmaConfig()), lambda net: PowerEma(net, 0.1)])
def test_an_average_has_every_key_of_the_model_and_buffers_as_they_are(
    kind: Callable[[nn.Module], Average],
) -> None:
    net = model()
    average = kind(net)
    with torch.no_grad():
        net.y_embedding.add_(1)
        net[0].weight.add_(1)
    if isinstance(average, Ema):
        average.update(5, TAKEN)
    else:
        assert isinstance(average, PowerEma)
        average.update(40, 48)
    assert average.state_dict().keys() == net.state_dict().keys()
    assert torch.equal(average.state_dict()["y_embedding"], net.y_embedding)
    assert not torch.equal(average.state_dict()["0.weight"], net[0].weight)
