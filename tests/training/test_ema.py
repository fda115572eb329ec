import pytest
import torch
from torch import nn

from training.config import EmaConfig
from training.ema import Ema

TAKEN, SKIPPED = torch.tensor(True), torch.tensor(False)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(3, 3) for _ in range(40)))


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
    for name, averaged in ema.state_dict().items():
        torch.testing.assert_close(averaged, expected[name])


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


def test_state_goes_into_another_average_by_name() -> None:
    net = model()
    source, target = Ema(net, EmaConfig()), Ema(model(), EmaConfig())
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    source.update(0, TAKEN)
    target.load_state_dict(source.state_dict())
    assert all(torch.equal(t, source.state_dict()[name]) for name, t in target.state_dict().items())
