import math

import pytest
import torch
from torch import Tensor

from training.diffusion.bins import BinnedLoss

CPU = torch.device("cpu")


def alone(sums: Tensor) -> Tensor:
    return sums


def test_the_means_are_those_of_the_samples_in_each_bin() -> None:
    torch.manual_seed(0)
    binned = BinnedLoss(CPU, (100.0, 500.0))
    timesteps, losses = torch.randint(0, 1000, (5, 40)), torch.rand(5, 40)
    for t, loss in zip(timesteps, losses, strict=True):
        binned.add(t, loss, torch.ones(40))
    binned.settle(alone)
    for name, low, high in (("0-100", 0, 100), ("100-500", 100, 500), ("500+", 500, 1000)):
        expected = losses[(timesteps >= low) & (timesteps < high)].double().mean().item()
        assert binned.means()[name] == pytest.approx(expected, rel=1e-12)


def test_an_edge_belongs_to_the_bin_above_it_and_fractions_count() -> None:
    binned = BinnedLoss(CPU, (100.0,))
    binned.add(torch.tensor([0.0, 99.99, 100.0, 1000.0]), torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.ones(4))
    binned.settle(alone)
    assert binned.means() == {"0-100": 2.0, "100+": 6.0}


def test_unread_samples_and_losses_that_are_not_finite_are_left_out() -> None:
    binned = BinnedLoss(CPU, ())
    losses = torch.tensor([1.0, math.nan, math.inf, 5.0, 100.0])
    binned.add(torch.tensor([1, 2, 3, 4, 5]), losses, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))
    binned.settle(alone)
    assert binned.means() == {"0+": 3.0}


def test_a_bin_without_samples_has_no_mean() -> None:
    binned = BinnedLoss(CPU, (500.0,))
    binned.add(torch.tensor([10]), torch.tensor([2.0]), torch.ones(1))
    binned.settle(alone)
    assert binned.means() == {"0-500": 2.0, "500+": None}


def test_a_run_that_goes_on_has_the_totals_of_one_that_never_stopped() -> None:
    torch.manual_seed(1)
    timesteps, losses, ones = torch.randint(0, 1000, (4, 16)), torch.rand(4, 16), torch.ones(16)
    whole, before = BinnedLoss(CPU), BinnedLoss(CPU)
    for step in range(4):
        whole.add(timesteps[step], losses[step], ones)
        if step < 2:
            before.add(timesteps[step], losses[step], ones)
        if step == 1:
            whole.settle(alone)
            before.settle(alone)
    after = BinnedLoss(CPU, totals=before.totals)
    for step in (2, 3):
        after.add(timesteps[step], losses[step], ones)
    whole.settle(alone)
    after.settle(alone)
    assert after.totals == whole.totals


def test_ranks_are_summed_and_a_new_line_begins_with_nothing() -> None:
    binned = BinnedLoss(CPU, (500.0,))
    binned.add(torch.tensor([10, 600]), torch.tensor([2.0, 4.0]), torch.ones(2))
    binned.settle(lambda sums: sums + torch.tensor([[4.0, 1.0], [0.0, 0.0]]))
    assert binned.means() == {"0-500": 3.0, "500+": 4.0}
    binned.restart()
    assert binned.means() == {"0-500": None, "500+": None}


def test_gradients_are_not_kept_alive() -> None:
    binned = BinnedLoss(CPU, ())
    binned.add(torch.tensor([1]), torch.tensor([1.0], requires_grad=True), torch.ones(1))
    assert not binned._pending.requires_grad


def test_edges_must_ascend_and_totals_must_fit_them() -> None:
    with pytest.raises(ValueError, match="do not ascend"):
        BinnedLoss(CPU, (500.0, 100.0))
    with pytest.raises(ValueError, match="1 totals for 2 bins"):
        BinnedLoss(CPU, (500.0,), ((0.0, 0.0),))
