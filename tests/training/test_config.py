import dataclasses
import json
from typing import Any

import pytest

from schemas.errors import SchemaError, UserError
from schemas.record import from_json, to_json
from training.config import EmaConfig, OptimiserConfig, Recipe, RunConfig, scaled_rate
from training.data.mixture import Source
from training.data.policy import Policy
from training.diffusion.config import ObjectiveConfig
from training.models.config import DitConfig, PixArtConfig
from training.models.reading import Reading

NAN, INF = float("nan"), float("inf")


def recipe() -> Recipe:
    return Recipe("d" * 32, PixArtConfig(), "", 0, Policy(256), "bf16", OptimiserConfig(), EmaConfig())


def run() -> RunConfig:
    return RunConfig(
        recipe(), (Source("", "latents", ("text",)),), "out", 0.0, "cache", "", 10, 8, "cpu", 2, 2, 1, 5, 3, 20
    )


def test_a_run_configuration_survives_the_way_to_disk_and_back() -> None:
    assert from_json(RunConfig, to_json(run()), "config.json") == run()


def test_a_recipe_from_before_there_was_a_choice_of_objectives_has_the_default_one() -> None:
    older = json.loads(to_json(recipe()))
    del older["objective"]
    assert from_json(Recipe, json.dumps(older), "recipe.json") == recipe()


def test_an_unknown_key_is_an_error_that_names_it() -> None:
    text = to_json(run()).replace('"lr"', '"learning_rate"')
    with pytest.raises(SchemaError, match="unknown keys learning_rate"):
        from_json(RunConfig, text, "config.json")


def test_differences_name_each_value_that_changed() -> None:
    other = dataclasses.replace(recipe(), seed=1, optimiser=OptimiserConfig(lr=1e-4))
    assert recipe().differences(other) == ["seed was 0, now 1", "optimiser.lr was 2e-05, now 0.0001"]
    assert recipe().differences(recipe()) == []


def test_values_that_cannot_be_are_refused_in_one_line() -> None:
    changes: list[dict[str, Any]] = [{"precision": "fp8"}, {"seed": -1}, {"seed": 2**64}]
    changes += [{"ema": EmaConfig(decay=value)} for value in (-0.1, 1.5, NAN)]
    for name, values in {"lr": (0, NAN, INF), "clip": (0, NAN), "weight_decay": (-1, NAN, INF)}.items():
        changes += [{"optimiser": OptimiserConfig(**{name: value})} for value in values]
    changes.append({"optimiser": OptimiserConfig(warmup_steps=-1)})
    changes.append({"objective": ObjectiveConfig(prediction="flow")})  # of a model with variance channels
    for change in changes:
        with pytest.raises(UserError) as caught:
            dataclasses.replace(recipe(), **change)
        assert "\n" not in str(caught.value)
    dataclasses.replace(recipe(), seed=2**64 - 1, optimiser=OptimiserConfig(clip=INF, warmup_steps=0, weight_decay=0))
    for name in ("save_every", "max_skipped"):
        with pytest.raises(UserError, match=f"--{name.replace('_', '-')} 0 is too small"):
            dataclasses.replace(run(), **{name: 0})


def test_a_recipe_of_either_kind_of_model_comes_back_as_what_it_was() -> None:
    dit = dataclasses.replace(recipe(), model=DitConfig(classes=10), reading=Reading("fresh"), stage="pixel")
    assert from_json(Recipe, to_json(dit), "recipe.json") == dit
    assert from_json(Recipe, to_json(recipe()), "recipe.json") == recipe()
    text = to_json(dit).replace('"classes"', '"clases"')
    with pytest.raises(SchemaError, match="expected the keys of PixArtConfig or DitConfig"):
        from_json(Recipe, text, "recipe.json")


def test_the_rule_of_the_released_code_gives_the_rates_it_trained_with() -> None:
    for batch, rate in ((11_392, 1.334e-4), (2_560, 6.325e-5), (384, 2.449e-5), (256, 2e-5)):
        assert scaled_rate(2e-5, "sqrt", batch) == pytest.approx(rate, rel=1e-3)
        assert scaled_rate(2e-5, "constant", batch) == 2e-5
    for rule, batch in (("sqrt", 0), ("linear", 256)):
        with pytest.raises(UserError, match=r"--lr-rule"):
            scaled_rate(2e-5, rule, batch)
