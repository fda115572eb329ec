"""Attention over each row's own columns is that over all columns with a mask, and no row knows of another one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from curation.captions.attention import is_quick, masked, own_columns

COLUMNS = 24


def blocks(rows: int, heads: int, shared: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows + 10 * heads + 100 * shared + 1000 * width)
    query = torch.randn(rows, heads * shared, width, generator=generator)
    keys, values = torch.randn(2, rows, heads, COLUMNS, width, generator=generator)
    return query, keys, values


@given(
    last=st.lists(st.integers(0, COLUMNS - 1), min_size=1, max_size=5),
    heads=st.integers(1, 3),
    shared=st.integers(1, 3),
    width=st.sampled_from([1, 8, 20, 64]),
)
def test_own_columns_give_what_a_mask_over_all_columns_gives(
    last: list[int], heads: int, shared: int, width: int
) -> None:
    query, keys, values = blocks(len(last), heads, shared, width)
    ends = torch.tensor(last)
    bias = torch.where(torch.arange(COLUMNS) <= ends[:, None], 0.0, -torch.inf)[:, None, None]
    found = own_columns(query, keys, values, ends, width**-0.5)
    torch.testing.assert_close(found, masked(query, keys, values, bias, width**-0.5), rtol=1e-5, atol=1e-6)


def test_scores_as_large_as_they_come_do_not_overflow() -> None:
    query, keys, values = blocks(2, 1, 1, 8)
    found = own_columns(1e4 * query, keys, values, torch.tensor([23, 4]), 1.0)
    assert bool(found.isfinite().all())


def test_a_row_is_the_same_to_the_bit_beside_any_other_and_whatever_lies_behind_it() -> None:
    query, keys, values = blocks(3, 2, 2, 20)
    alone = own_columns(query[:1], keys[:1], values[:1], torch.tensor([9]), 0.25)
    keys[0, :, 10:], values[0, :, 10:] = torch.nan, torch.nan
    for others in ([0, 23], [23, 1]):
        beside = own_columns(query, keys, values, torch.tensor([9, *others]), 0.25)
        assert torch.equal(beside[:1], alone)


def test_a_number_that_is_none_stays_one() -> None:
    query, keys, values = blocks(2, 1, 1, 8)
    values[0, 0, 3, 2] = torch.nan
    found = own_columns(query, keys, values, torch.tensor([5, 5]), 1.0)
    assert bool(found[0, 0, 2].isnan())
    assert bool(found[1].isfinite().all())


def test_it_is_for_one_thread_and_float32_alone() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert is_quick(torch.zeros(1))
        assert not is_quick(torch.zeros(1, dtype=torch.bfloat16))
        assert not is_quick(torch.zeros(1, device="meta"))
        torch.set_num_threads(2)
        assert not is_quick(torch.zeros(1))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_columns_are_summed_whether_or_not_they_come_in_fours(count: int) -> None:
    query, keys, values = blocks(1, 1, 1, 8)
    keys[:] = 0
    found = own_columns(query, keys, values, torch.tensor([count - 1]), 1.0)
    torch.testing.assert_close(found[0, 0], values[0, 0, :count].mean(0))
