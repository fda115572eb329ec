import pytest
import torch

from curation.demo.muon import Muon, matrices_and_others, orthogonal


@pytest.mark.parametrize("shape", [(2, 6, 6), (2, 4, 9), (2, 9, 4)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    assert values.max() / values.min() > 2
    turned = left.mT @ orthogonal(matrices) @ right.mT
    diagonal = torch.diagonal(turned, dim1=-2, dim2=-1)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (turned - torch.diag_embed(diagonal)).abs().max() < 1e-3


def test_a_regression_is_learnt_with_matrices_by_muon() -> None:
    torch.manual_seed(0)
    wanted, start = torch.randn(8, 8), torch.nn.Parameter(torch.zeros(8, 8))
    muon = Muon([start], 0.05, weight_decay=0.0)
    for _ in range(200):
        muon.zero_grad()
        ((start - wanted) ** 2).sum().backward()
        muon.step()
    assert ((start - wanted) ** 2).mean() < 0.02 * (wanted**2).mean()


def test_only_matrices_of_repeated_layers_are_muons() -> None:
    class Stack(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(3, 4)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 4)])

    stack = Stack()
    matrices, others = matrices_and_others(stack)
    assert [p.shape for p in matrices] == [(4, 4)]
    assert [p.shape for p in others] == [(3, 4), (4,)]
