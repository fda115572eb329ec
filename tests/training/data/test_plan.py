from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import UserError
from schemas.record import to_json
from training.data.mixture import Share
from training.data.plan import (
    GlobalBatch,
    Plan,
    accumulation_of,
    plan,
    rank_slice,
    require_shares,
)
from training.data.policy import Policy
from training.data.population import Population, grouped
from training.data.prefetch import Share as RankShare
from training.data.prefetch import micro_batches

Make = Callable[..., Population]
Use = tuple[int, int]

WEIGHTS = (0.25, 0.5, 1.0, 1.7, 3.0)
sizes = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4).filter(sum), min_size=1, max_size=3)


@st.composite
def policies(draw: st.DrawFn, datasets: int, tokens: bool | None = None) -> Policy:
    by_tokens = draw(st.booleans()) if tokens is None else tokens
    return Policy(
        global_batch=0 if by_tokens else draw(st.integers(1, 24)),
        tokens_per_batch=draw(st.integers(320, 3000)) if by_tokens else 0,
        tokens_counted=draw(st.sampled_from(("all", "text"))),
        shuffle_window=draw(st.sampled_from((0, 1, 16, 40))),
        caption_drop=draw(st.sampled_from((0.0, 0.1))),
        datasets=tuple(Share(f"d{i}", draw(st.sampled_from(WEIGHTS))) for i in range(datasets)),
    )


@st.composite
def plans(draw: st.DrawFn, make: Make, tokens: bool | None = None) -> tuple[Plan, Population]:
    population = make(draw(sizes), seed=draw(st.integers(0, 3)))
    policy = draw(policies(len(population.starts) - 1, tokens))
    return Plan(population, draw(st.integers(0, 5)), policy), population


def uses_of(batch: GlobalBatch) -> list[Use]:
    return list(zip(batch.rows.tolist(), batch.visits.tolist(), strict=True))


def same(one: GlobalBatch, other: GlobalBatch) -> bool:
    arrays = ("rows", "visits", "samples", "variants", "flipped")
    return one.bucket == other.bucket and all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)


def buckets_of(population: Population) -> np.ndarray:
    out = np.empty(len(population), np.int64)
    for stratum in population.strata:
        out[population.members[stratum.first : stratum.first + stratum.size]] = stratum.bucket
    return out


def text_tokens(population: Population, rows: np.ndarray) -> np.ndarray:
    return population.tokens[rows].max(axis=1).astype(int)


@given(data=st.data(), epochs=st.integers(1, 5))
def test_an_epoch_uses_each_sample_as_often_as_its_weight_says_but_for_what_is_carried_over(
    make_population: Make, data: st.DataObject, epochs: int
) -> None:
    made, population = data.draw(plans(make_population))
    policy = made.policy
    used = Counter(use for step in range(made.steps_before(epochs)) for use in uses_of(made.batch(step)))
    assert max(used.values(), default=1) == 1
    limit = policy.global_batch or policy.tokens_per_batch
    buckets = buckets_of(population)
    for bucket in sorted(set(buckets.tolist())):
        due: set[Use] = set()
        for stratum in (s for s in population.strata if s.bucket == bucket):
            members = population.members[stratum.first : stratum.first + stratum.size].tolist()
            mine = {use for use in used if use[0] in set(members)}
            total = Fraction(repr(policy.datasets[stratum.dataset].weight)) * stratum.size * epochs
            passes, rest = divmod(int(total), stratum.size)
            assert all(visit < passes + (rest > 0) for _, visit in mine)
            assert len({use for use in mine if use[1] == passes}) <= rest
            due |= {(row, visit) for row in members for visit in range(passes)} - mine
        # All that whole passes owe and was not used is carried over: it does not fill a batch.
        carried = np.array([row for row, _ in due], dtype=np.int64)
        if policy.global_batch:
            assert len(due) < limit
        else:
            assert text_tokens(population, carried).sum() < limit


@given(data=st.data(), step=st.integers(0, 60))
def test_a_batch_has_one_bucket_and_a_size_within_what_was_promised(
    make_population: Make, data: st.DataObject, step: int
) -> None:
    made, population = data.draw(plans(make_population))
    batch = made.batch(step)
    least, most = made.sizes()
    assert least <= len(batch) <= most
    assert len(batch) == batch.whole
    assert set(buckets_of(population)[batch.rows]) == {batch.bucket}
    assert np.array_equal(batch.samples, population.sample[batch.rows])


@given(data=st.data(), step=st.integers(0, 60))
def test_no_batch_is_over_its_token_budget_and_none_could_take_two_more_of_the_longest(
    make_population: Make, data: st.DataObject, step: int
) -> None:
    made, population = data.draw(plans(make_population, tokens=True))
    batch, policy = made.batch(step), made.policy
    height, width = population.latent_cells[batch.bucket]
    latent = height // 2 * (width // 2) if policy.tokens_counted == "all" else 0
    weights = text_tokens(population, batch.rows) + latent
    longest = text_tokens(population, np.flatnonzero(buckets_of(population) == batch.bucket)).max() + latent
    assert policy.tokens_per_batch - 2 * longest < weights.sum() <= policy.tokens_per_batch


@settings(max_examples=50)
@given(data=st.data(), start=st.integers(0, 80))
def test_a_plan_entered_at_any_step_goes_on_as_if_it_had_been_walked(
    make_population: Make, data: st.DataObject, start: int
) -> None:
    walked, population = data.draw(plans(make_population))
    batches = [walked.batch(step) for step in range(start + 4)]
    entered = Plan(population, walked._seed, walked.policy)
    assert all(same(entered.batch(step), batches[step]) for step in range(start, start + 4))


@settings(max_examples=30)
@given(data=st.data(), epoch=st.integers(0, 12))
def test_the_plan_of_an_epoch_is_a_pure_function(make_population: Make, data: st.DataObject, epoch: int) -> None:
    made, population = data.draw(plans(make_population))
    once, again = (list(plan(population, made._seed, epoch, made.policy)) for _ in range(2))
    assert all(same(one, other) for one, other in zip(once, again, strict=True))
    start = made.steps_before(epoch)
    assert len(once) == made.steps_before(epoch + 1) - start
    assert all(same(made.batch(start + i), batch) for i, batch in enumerate(once))
    assert [made.epoch_of(start + i) for i in range(len(once))] == [epoch] * len(once)


@settings(max_examples=30)
@given(data=st.data(), epoch=st.integers(0, 3))
def test_the_steps_that_hold_a_sample_are_found(make_population: Make, data: st.DataObject, epoch: int) -> None:
    made, population = data.draw(plans(make_population))
    row = data.draw(st.integers(0, len(population) - 1))
    every = sorted({step for e in range(epoch + 1) for step in made.find(row, e)})
    held = [step for step in range(made.steps_before(epoch + 1)) if row in made.batch(step).rows]
    assert held == [step for step in every if step < made.steps_before(epoch + 1)]
    assert all(row in made.batch(step).rows for step in every)


def ranks(made: Plan, world: int, micro_batch: int, steps: range) -> Iterator[list[Use]]:
    """The global batches, put together again from what each rank takes."""
    shares = [micro_batches(made, RankShare(rank, world, micro_batch), steps) for rank in range(world)]
    for step in steps:
        micro_steps = accumulation_of(len(made.batch(step)), micro_batch, world)
        yield [use for _ in range(micro_steps) for share in shares for use in uses_of(next(share))]


@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize(
    "policy",
    [
        Policy(48, shuffle_window=64, datasets=(Share("a", 1.7, (1, 3)), Share("b", 0.5, (1,)))),
        Policy(0, 6000, datasets=(Share("a", 1.0, (1, 3)), Share("b", 2.0, (1,)))),
    ],
    ids=["samples", "tokens"],
)
def test_world_size_and_accumulation_do_not_change_the_global_batches(
    make_population: Make, world: int, accumulation: int, policy: Policy
) -> None:
    population = make_population([[150, 40, 9], [60, 30]], variants=2, lacking=0.2)
    made = Plan(population, 3, policy)
    micro_batch = -(-made.sizes()[1] // (world * accumulation))
    steps = range(made.steps_before(1) - 4, made.steps_before(1) + 4)
    assert list(ranks(made, world, micro_batch, steps)) == [uses_of(made.batch(step)) for step in steps]


@pytest.mark.parametrize("policy", [Policy(12), Policy(12, shuffle_window=32), Policy(0, 1200, "text")])
def test_a_run_resumed_twice_in_one_epoch_at_other_world_sizes_drops_and_repeats_nothing(
    make_population: Make, policy: Policy
) -> None:
    population = make_population([[100, 37, 20]])
    whole = Plan(population, 1, policy)
    steps = whole.steps_before(2)
    cuts = [0, steps // 5, steps // 3, steps]
    seen: list[list[Use]] = []
    for (start, stop), world in zip(pairwise(cuts), (3, 4, 2), strict=True):
        seen += ranks(Plan(population, 1, policy), world, 2, range(start, stop))
    assert seen == [uses_of(whole.batch(step)) for step in range(steps)]
    assert max(Counter(use for batch in seen for use in batch).values()) == 1


def test_a_weight_says_how_often_each_sample_is_used_an_epoch(make_population: Make) -> None:
    population = make_population([[400], [400]])
    made = Plan(population, 0, Policy(10, datasets=(Share("a", 2.0), Share("b", 0.25))))
    for epoch in range(4):
        steps = range(made.steps_before(epoch), made.steps_before(epoch + 1))
        used = Counter(row for step in steps for row in made.batch(step).rows.tolist())
        assert [used[row] for row in range(400)] == [2] * 400
        assert sum(used[row] for row in range(400, 800)) == 100
    used = Counter(row for step in range(made.steps_before(4)) for row in made.batch(step).rows.tolist())
    assert [used[row] for row in range(400, 800)] == [1] * 400


def test_datasets_are_mixed_in_proportion_in_every_part_of_an_epoch(make_population: Make) -> None:
    population = make_population([[60_000, 20_000], [40_000, 40_000]])
    made = Plan(population, 0, Policy(100, shuffle_window=8000, datasets=(Share("a", 1.0), Share("b", 0.5))))
    steps = made.steps_before(1)
    assert made.blocks == 15
    for start in range(0, steps - 100, 100):  # about a block each
        rows = np.concatenate([made.batch(step).rows for step in range(start, start + 100)])
        share = np.mean(rows >= 80_000)
        assert abs(share - 1 / 3) < 0.08


def test_buckets_keep_their_share_in_every_block(make_population: Make) -> None:
    population = make_population([[150_000, 45_000, 5_000]])
    made = Plan(population, 0, Policy(50))
    assert made.blocks == 3
    first = made.steps_before(1)
    counts = [Counter(made.batch(step).bucket for step in range(s, s + first // 3)) for s in (0, first // 3)]
    for found in counts:
        assert found[0] == pytest.approx(1000, abs=2)
        assert found[1] == pytest.approx(300, abs=2)


def test_seed_epoch_and_data_each_change_the_order(make_population: Make) -> None:
    def first(data: int, seed: int, step: int) -> list[int]:
        return Plan(make_population([[64]], seed=data), seed, Policy(64)).batch(step).rows.tolist()

    orders = [first(0, 0, 0), first(0, 0, 1), first(0, 1, 0), first(1, 0, 0)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(64)) for order in orders)


GOLDEN = {
    "samples": Policy(12),
    "window": Policy(12, shuffle_window=32),
    "mixture": Policy(8, datasets=(Share("a", 1.5, (1, 3)), Share("b", 0.5, (1.0,), 0.5)), caption_drop=0.2),
    "tokens": Policy(0, 1500, caption_drop=0.1),
    "text": Policy(0, 700, "text", shuffle_window=16),
}
DIGESTS = {
    "samples": "b8e3e1c2cef64010",
    "window": "4a835e31279bc3bb",
    "mixture": "7626a5aa472d1055",
    "tokens": "dcfaf17485bb8857",
    "text": "45ecf9cd677b31a6",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_plan_of_this_version_never_changes(name: str) -> None:
    """Change PLAN_VERSION with any of these: a run must not go on under another plan than it began with."""
    rows, variants = np.arange(169), 1 + (name == "mixture")
    starts = (0, 129, 169) if name == "mixture" else (0, 169)
    members, strata = grouped(rows * rows % 11 % 3, starts)
    tokens = (rows[:, None] * 37 + np.arange(variants) * 11) % 120 + 1
    tokens[::5, variants - 1] = 0 if name == "mixture" else 60
    cells, flipped = ((8, 8), (8, 12), (8, 16)), (rows % 3 - 1).astype(np.int32)
    ids = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    population = Population("d", starts, strata, members, cells, ids, tokens.astype(np.uint16), flipped)
    made, digest = Plan(population, 7, GOLDEN[name]), xxhash.xxh3_64()
    for step in range(made.steps_before(3)):
        batch = made.batch(step)
        for array in (batch.rows, batch.visits, batch.samples, batch.variants, batch.flipped):
            digest.update(np.ascontiguousarray(array))
    assert digest.hexdigest() == DIGESTS[name]


def test_the_state_is_a_few_scalars_that_name_no_rank(make_population: Make) -> None:
    state = Plan(make_population([[10]]), 2**64 - 1, Policy(4)).state(2**40, 2**50)
    state = type(state)("f" * 32, state.policy_digest, state.seed, state.step, state.images_seen)
    assert set(state.__dataclass_fields__) == {
        "manifest_digest",
        "policy_digest",
        "seed",
        "step",
        "images_seen",
        "plan_version",
    }
    assert len(to_json(state)) < 300


@given(st.integers(1, 200), st.integers(1, 8), st.integers(1, 8))
def test_the_slices_of_ranks_and_micro_steps_partition_the_global_batch(
    size: int, world: int, accumulation: int
) -> None:
    places = np.arange(size)
    parts = [places[rank_slice(size, r, world, m, accumulation)] for m in range(accumulation) for r in range(world)]
    assert np.array_equal(np.concatenate(parts), places)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 8))
def test_no_rank_gets_more_than_the_micro_batch_or_nothing(size: int, micro_batch: int, world: int) -> None:
    try:
        accumulation = accumulation_of(size, micro_batch, world)
    except UserError:
        assert -(-size // (world * micro_batch)) * world > size
        assert micro_batch == 1 or size < world  # what `require_shares` asks of a token budget is enough
        return
    lengths = [
        len(range(size)[rank_slice(size, r, world, m, accumulation)]) for m in range(accumulation) for r in range(world)
    ]
    assert 1 <= min(lengths) <= max(lengths) <= micro_batch


def test_batches_too_small_for_the_ranks_are_refused_in_one_line(make_population: Make) -> None:
    population = make_population([[30]])
    with pytest.raises(UserError, match="a global batch of 3 does not give each of 4 ranks"):
        require_shares(Plan(population, 0, Policy(3)), 1, 4)
    tokens = Plan(population, 0, Policy(0, 600, "text"))
    require_shares(tokens, 2, tokens.sizes()[0])
    for micro_batch, world in ((1, 2), (2, tokens.sizes()[0] + 1)):
        with pytest.raises(UserError, match="--tokens-per-batch 600 makes batches of") as caught:
            require_shares(tokens, micro_batch, world)
        assert "\n" not in str(caught.value)


def test_a_budget_that_does_not_hold_two_of_the_longest_is_refused(make_population: Make) -> None:
    population = make_population([[300]])
    longest = int(population.tokens.max())
    Plan(population, 0, Policy(0, 2 * longest, "text")).batch(3)
    with pytest.raises(UserError, match=rf"the longest sample has {longest} tokens. Use at least {2 * longest}"):
        Plan(population, 0, Policy(0, 2 * longest - 1, "text"))


def test_a_step_of_a_distant_epoch_is_found_as_one_of_the_first(make_population: Make) -> None:
    population = make_population([[70, 20], [25]])
    for policy in (
        Policy(6, datasets=(Share("a", 0.3), Share("b", 1.7))),
        Policy(0, 900, "text", datasets=(Share("a", 0.3), Share("b", 1.7))),
    ):
        made = Plan(population, 0, policy)
        step = made.steps_before(1000)
        assert made.epoch_of(step) == 1000
        assert made.epoch_of(step - 1) == 999
        assert len(made.batch(step + 3)) >= 1
