from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UserError
from training.data.plan import Plan, Policy, accumulation_of, plan, rank_slice

bucket_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)
global_batches = st.integers(1, 24)


def shuffled_buckets(sizes: list[int]) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes), dtype=np.int32), sizes))


def make(sizes: list[int], global_batch: int, seed: int = 1) -> Plan:
    return Plan(shuffled_buckets(sizes), "digest", seed, Policy(global_batch))


@given(bucket_sizes, global_batches, st.integers(1, 6))
def test_each_sample_is_used_once_an_epoch_but_for_the_carried_remainder(
    sizes: list[int], global_batch: int, epochs: int
) -> None:
    made, buckets = make(sizes, global_batch), shuffled_buckets(sizes)
    used: Counter[tuple[int, int]] = Counter()
    for step in range(made.steps_before(epochs)):
        batch = made.batch(step)
        used.update(zip(batch.rows.tolist(), batch.visits.tolist(), strict=True))
    assert max(used.values(), default=1) == 1
    for bucket, size in enumerate(sizes):
        rows = set(np.flatnonzero(buckets == bucket).tolist())
        mine = Counter({use: n for use, n in used.items() if use[0] in rows})
        remainder = epochs * size % global_batch
        assert sum(mine.values()) == epochs * size - remainder
        whole_visits = (epochs * size - remainder) // size
        assert all((row, visit) in mine for row in rows for visit in range(whole_visits))
        assert all(visit <= whole_visits for _, visit in mine)


@given(bucket_sizes, global_batches, st.integers(0, 60))
def test_a_batch_has_one_bucket_and_the_full_size(sizes: list[int], global_batch: int, step: int) -> None:
    batch = make(sizes, global_batch).batch(step)
    assert len(batch.rows) == len(batch.visits) == global_batch
    assert set(shuffled_buckets(sizes)[batch.rows]) == {batch.bucket}


@given(bucket_sizes, global_batches, st.integers(0, 60))
def test_a_plan_entered_at_any_step_goes_on_as_if_it_had_been_walked(
    sizes: list[int], global_batch: int, start: int
) -> None:
    walked = make(sizes, global_batch)
    batches = [walked.batch(step) for step in range(start + 5)]
    entered = make(sizes, global_batch)
    for step in range(start, start + 5):
        batch = entered.batch(step)
        assert np.array_equal(batch.rows, batches[step].rows)
        assert np.array_equal(batch.visits, batches[step].visits)


@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 8))
def test_the_slices_of_ranks_and_micro_steps_partition_the_global_batch(
    size: int, world: int, accumulation: int
) -> None:
    places = np.arange(size)
    parts = [places[rank_slice(size, r, world, m, accumulation)] for m in range(accumulation) for r in range(world)]
    assert np.array_equal(np.concatenate(parts), places)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 8))
def test_no_rank_gets_more_than_the_micro_batch_or_nothing(global_batch: int, micro_batch: int, world: int) -> None:
    try:
        accumulation = accumulation_of(global_batch, micro_batch, world)
    except UserError:
        assert -(-global_batch // (world * micro_batch)) * world > global_batch
        return
    lengths = [
        len(range(global_batch)[rank_slice(global_batch, r, world, m, accumulation)])
        for m in range(accumulation)
        for r in range(world)
    ]
    assert 1 <= min(lengths) <= max(lengths) <= micro_batch


@settings(max_examples=30)
@given(bucket_sizes, global_batches, st.integers(0, 20), st.integers(0, 3))
def test_the_plan_of_an_epoch_is_a_pure_function(sizes: list[int], global_batch: int, epoch: int, seed: int) -> None:
    once, again = (plan(sizes, "digest", seed, epoch, Policy(global_batch)) for _ in range(2))
    assert np.array_equal(once.bucket, again.bucket)
    assert np.array_equal(once.index, again.index)
    made = make(sizes, global_batch, seed)
    start = made.steps_before(epoch)
    assert len(once.bucket) == made.steps_before(epoch + 1) - start
    assert [made.batch(start + i).bucket for i in range(len(once.bucket))] == once.bucket.tolist()


def test_seed_epoch_and_data_each_change_the_order() -> None:
    def first(digest: str, seed: int, step: int) -> list[int]:
        return Plan(np.zeros(64, np.int32), digest, seed, Policy(64)).batch(step).rows.tolist()

    orders = [first("a", 0, 0), first("a", 0, 1), first("a", 1, 0), first("b", 0, 0)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(64)) for order in orders)


def test_the_order_is_fixed_for_all_time() -> None:
    batch = Plan(np.array([0, 0, 0, 1, 1, 0], np.int32), "digest", 7, Policy(3)).batch(1)
    assert (batch.bucket, batch.rows.tolist(), batch.visits.tolist()) == (0, [1, 5, 1], [0, 1, 1])


def test_a_global_batch_too_small_for_the_ranks_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="--global-batch 3 does not give each of 4 ranks"):
        accumulation_of(3, 1, 4)


def test_the_state_counts_images_and_names_no_rank() -> None:
    state = make([10], 4).state(25)
    assert state.images_seen == 100
    assert set(state.__dataclass_fields__) == {"manifest_digest", "seed", "global_batch", "step", "plan_version"}
