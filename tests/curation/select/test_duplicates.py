import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.select import duplicates
from curation.select.duplicates import better_copies_exist, close_pairs


@st.composite
def clustered(draw: st.DrawFn) -> list[int]:
    """Hashes of which many are a few bits from one another."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=5)
    rows = draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=40))
    return [centre ^ sum({1 << bit for bit in bits}) for centre, bits in rows]


def by_hand(hashes: list[int], rank: list[int], within: int) -> list[bool]:
    """Row by row from the best: gone if a row that stayed is close."""
    stayed: list[int] = []
    gone = [False] * len(hashes)
    for row in sorted(range(len(hashes)), key=rank.__getitem__):
        gone[row] = any((hashes[row] ^ hashes[other]).bit_count() <= within for other in stayed)
        if not gone[row]:
            stayed.append(row)
    return gone


@given(clustered(), st.integers(0, 7), st.randoms(use_true_random=False))
def test_what_goes_is_what_comparing_all_pairs_says(hashes: list[int], within: int, random: object) -> None:
    rank = list(range(len(hashes)))
    random.shuffle(rank)
    found = better_copies_exist(np.array(hashes, np.uint64), np.array(rank, np.int64), within)
    assert found.tolist() == by_hand(hashes, rank, within)


@given(clustered(), st.integers(0, 7))
def test_all_close_pairs_are_found_once(hashes: list[int], within: int) -> None:
    values = np.unique(np.array(hashes, np.uint64))
    whole = values.tolist()
    expected = [
        (i, j)
        for i in range(len(whole))
        for j in range(i + 1, len(whole))
        if (whole[i] ^ whole[j]).bit_count() <= within
    ]
    assert list(zip(*(side.tolist() for side in close_pairs(values, within)), strict=True)) == expected


def test_batches_of_candidates_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    base = noise.integers(0, 2**64, 50, dtype=np.uint64)
    values = np.unique(np.concatenate([base ^ (np.uint64(1) << np.uint64(bit)) for bit in range(20)]))
    whole = close_pairs(values, 4)
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 7)
    assert all((one == other).all() for one, other in zip(whole, close_pairs(values, 4), strict=True))


def test_a_chain_of_small_steps_does_not_take_away_what_is_far_from_all_that_stay() -> None:
    chain = np.array([(1 << 3 * n) - 1 for n in range(6)], np.uint64)  # 3 bits from one to the next
    assert better_copies_exist(chain, np.arange(6), 3).tolist() == [False, True, False, True, False, True]
