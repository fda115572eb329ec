"""Measures of other datasets meet captions by shard and key."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.report.collect import collect
from curation.report.inputs import CorpusInputs
from curation.report.joined import JoinedMeasures
from curation.report.measure_sources import measures_source
from curation.report.nouns import per_image_source
from curation.report.samples import sample_ids
from schemas.reading import open_dataset


def captions(*pairs: tuple[str, str]) -> Any:
    return pa.table({"shard": [shard for shard, _ in pairs], "key": [key for _, key in pairs]})


def test_each_row_gets_the_value_of_its_own_shard_and_key(measures: Path) -> None:
    join = JoinedMeasures([measures_source(open_dataset(str(measures), "measures"))])
    table = captions(("s0", "d/k2"), ("s0", "d/k1"), ("s0", "d/k9"), ("s1", "d/k0"))
    ids = sample_ids(table)
    assert np.array_equal(join.values("sharpness", ids, table), [3, 2, np.nan, 9], equal_nan=True)
    assert np.array_equal(join.values("aesthetic", ids, table), [0.2, np.nan, np.nan, 9], equal_nan=True)
    other = captions(("s2", "d/k0"))
    assert np.isnan(join.values("sharpness", sample_ids(other), other)).all()


def test_a_filter_can_ask_for_what_some_dataset_holds(measures: Path) -> None:
    join = JoinedMeasures([measures_source(open_dataset(str(measures), "measures"))])
    assert all(join.knows(name) for name in ("sharpness", "aesthetic", "pwatermark", "n_words", "min_side"))
    assert not join.knows("similarity")


def test_nouns_of_the_cleaned_caption_are_a_measure(datasets: Any) -> None:
    source = per_image_source(open_dataset(str(datasets.nouns), "nouns"))
    assert source is not None
    table = captions(("s0", "d/k0"), ("s0", "d/k4"), ("s0", "d/k5"))
    values = JoinedMeasures([source]).values("nouns", sample_ids(table), table)
    assert np.array_equal(values, [10, 0, np.nan], equal_nan=True)


def test_measures_are_reported_beside_captions(datasets: Any, measures: Path) -> None:
    (corpus,) = collect([CorpusInputs(captions=str(datasets.captions), measures=str(measures))]).corpora
    assert [facts.kind for facts in corpus.datasets] == ["captions", "measures"]
    assert {time.kind for time in corpus.times} == {"captions", "measures"}
