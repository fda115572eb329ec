"""Which filters have their edges shown, and where their limits come from."""

from curation.captions.quality_thresholds import Thresholds
from curation.report.edges import Threshold
from curation.report.thresholds import usual_thresholds, with_recipe
from schemas.dataset import DatasetInfo


def info(kind: str, config: dict[str, object], facts: dict[str, object] | None = None) -> DatasetInfo:
    return DatasetInfo(kind, 1, kind, config, "f", "webdataset", "id", 0, facts=facts or {})


def by_measure(*thresholds: Threshold) -> dict[str, Threshold]:
    return {one.measure: one for one in thresholds}


def test_the_usual_limits_are_those_of_the_caption_rules() -> None:
    found = by_measure(*usual_thresholds(info("captions", {}), None))
    assert found["repeated_4grams"].most == Thresholds().max_repeated_4grams
    assert found["compression"].most == Thresholds().max_compression
    assert found["n_words"].least == Thresholds().min_words
    assert (found["min_side"].least, found["aspect"].most, found["n_t5_tokens"].most) == (256, 3, 120)


def test_limits_that_the_captions_were_judged_by_come_first() -> None:
    judged = info("captions", {"thresholds": {"max_repeated_4grams": 0.5, "unheard_of": 1}})
    assert by_measure(*usual_thresholds(judged, None))["repeated_4grams"].most == 0.5


def test_the_shorter_side_is_held_against_the_latents() -> None:
    latents = info("latents", {}, {"resolution": 512})
    assert by_measure(*usual_thresholds(info("captions", {}), latents))["min_side"].least == 512


def test_a_recipe_replaces_the_limits_it_mentions() -> None:
    mine = Threshold("aspect", "aspect", "mine", most=2)
    found = with_recipe(usual_thresholds(info("captions", {}), None), (mine,))
    assert found[0] is mine
    assert [one.measure for one in found].count("aspect") == 1
