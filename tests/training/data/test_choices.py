from collections.abc import Callable

import numpy as np
import pytest

from training.data.choices import DROPPED, Chooser
from training.data.mixture import Share
from training.data.policy import Policy
from training.data.population import Population

Make = Callable[..., Population]


def test_a_choice_follows_from_seed_sample_and_visit_alone(make_population: Make) -> None:
    population = make_population([[500], [300]], variants=3, lacking=0.3, flipped=0.7)
    policy = Policy(8, caption_drop=0.3, datasets=(Share("a", 1, (1, 2, 3), 0.5), Share("b", 2, (5, 1, 1), 0.2)))
    rows, visits = np.arange(800), np.arange(800) % 7
    whole = Chooser(population, 5, policy).choose(rows, visits)
    order = np.random.default_rng(0).permutation(800)
    for part in np.array_split(order, 13):
        alone = Chooser(population, 5, policy).choose(rows[part], visits[part])
        for name in ("samples", "variants", "flipped"):
            assert np.array_equal(getattr(alone, name), getattr(whole, name)[part])
    for seed, visit in ((6, visits), (5, visits + 7)):
        other = Chooser(population, seed, policy).choose(rows, visit)
        assert not np.array_equal(other.variants, whole.variants)
        assert not np.array_equal(other.flipped, whole.flipped)


def test_variants_are_drawn_by_the_weights_of_their_dataset(make_population: Make) -> None:
    population = make_population([[20_000], [20_000]], variants=3)
    policy = Policy(8, datasets=(Share("a", 1, (1, 2, 7)), Share("b", 1, (3, 1))))
    variants = Chooser(population, 0, policy).choose(np.arange(40_000), np.zeros(40_000, np.int64)).variants
    for mine, expected in ((variants[:20_000], (0.1, 0.2, 0.7)), (variants[20_000:], (0.75, 0.25, 0.0))):
        shares = np.bincount(mine, minlength=3) / 20_000
        assert shares == pytest.approx(expected, abs=5 * np.sqrt(0.25 / 20_000))


def test_a_sample_that_lacks_a_variant_takes_one_of_its_others_by_weight(make_population: Make) -> None:
    population = make_population([[30_000]], variants=3, lacking=0.5)
    policy = Policy(8, datasets=(Share("a", 1, (1, 2, 7)),))
    rows = np.arange(30_000)
    variants = Chooser(population, 0, policy).choose(rows, np.zeros(30_000, np.int64)).variants
    assert (population.tokens[rows, variants] > 0).all()
    lacks_last = (population.tokens > 0).tolist()
    mine = variants[[has == [True, True, False] for has in lacks_last]]
    assert np.mean(mine == 0) == pytest.approx(1 / 3, abs=5 * np.sqrt(0.25 / len(mine)))


def test_captions_are_dropped_and_pictures_flipped_at_the_rates_asked_for(make_population: Make) -> None:
    population = make_population([[40_000]], flipped=0.5)
    policy = Policy(8, caption_drop=0.1, datasets=(Share("a", 1, (1.0,), 0.3),))
    chosen = Chooser(population, 0, policy).choose(np.arange(40_000), np.zeros(40_000, np.int64))
    assert np.mean(chosen.variants == DROPPED) == pytest.approx(0.1, abs=0.01)
    assert population.flipped is not None
    has = population.flipped >= 0
    assert np.mean(chosen.flipped[has]) == pytest.approx(0.3, abs=0.02)
    assert not chosen.flipped[~has].any()
    both = np.mean(chosen.flipped[has] & (chosen.variants[has] == DROPPED))
    assert both == pytest.approx(0.03, abs=0.01)  # the draws know nothing of each other
