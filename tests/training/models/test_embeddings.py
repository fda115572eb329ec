import math

import numpy as np
import pytest
import torch

from training.models.embeddings import PositionEmbedding, position_embedding, sinusoids

CPU = torch.device("cpu")


def one_position(row: int, column: int, shape: tuple[int, int], width: int, base: int, scale: float) -> list[float]:
    """The embedding of one token by the formula, channel by channel."""
    quarter = width // 4
    channels = []
    for place, side in ((column, shape[1]), (row, shape[0])):
        coordinate = place * base / side / scale
        angles = [coordinate * 10_000 ** (-k / quarter) for k in range(quarter)]
        channels += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return channels


@pytest.mark.parametrize(("shape", "base", "scale"), [((16, 16), 16, 1.0), ((12, 20), 16, 1.0), ((5, 9), 64, 2.0)])
def test_positions_follow_the_formula_with_the_column_first(shape: tuple[int, int], base: int, scale: float) -> None:
    table = position_embedding(*shape, 32, base, scale, CPU).view(*shape, 32)
    for row, column in ((0, 0), (0, 1), (1, 0), (shape[0] - 1, shape[1] - 1), (3, 2)):
        expected = one_position(row, column, shape, 32, base, scale)
        np.testing.assert_allclose(table[row, column].numpy(), expected, atol=5e-6)


def test_a_table_is_made_once_a_shape() -> None:
    positions = PositionEmbedding(32, 16, 1.0)
    assert positions(4, 6, CPU) is positions(4, 6, CPU)
    assert positions(6, 4, CPU).shape == (1, 24, 32)
    assert not torch.equal(positions(6, 4, CPU), positions(4, 6, CPU))


def test_a_table_made_under_inference_mode_serves_in_training() -> None:
    positions = PositionEmbedding(32, 16, 1.0)
    with torch.inference_mode():
        positions(4, 4, CPU)
    x = torch.ones(1, 16, 32, requires_grad=True)
    (x * positions(4, 4, CPU)).sum().backward()
    assert x.grad is not None


def test_sinusoids_of_time_put_cosines_first() -> None:
    table = sinusoids(torch.tensor([0, 7]))
    assert table.shape == (2, 256)
    assert table[0].tolist() == [1.0] * 128 + [0.0] * 128
    frequency = 10_000 ** (-3 / 128)
    assert table[1, 3].item() == pytest.approx(math.cos(7 * frequency), abs=1e-5)
    assert table[1, 131].item() == pytest.approx(math.sin(7 * frequency), abs=1e-5)
