"""What a threshold keeps and drops, and which rows lie at its edge."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.report.edges import EDGE_SAMPLES, Edge, EdgePass, Threshold, in_words, measured
from curation.report.samples import sample_ids
from schemas.tables import CAPTIONS

VALUES = st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=1, max_size=60)


def captions(values: list[int | None], words: int = 50) -> pa.Table:
    """Rows with `values` as T5 tokens."""
    row = {"shard": "s", "width": 640, "height": 320, "raw_caption": None, "generated": "g", "caption": "c"}
    row |= {"status": "ok", "flags": [], "finish_reason": "stop", "error": None, "n_prompt_tokens": 0, "n_tokens": 0}
    row |= {"n_words": words, "repeated_4grams": 0.2, "compression": None, "mean_logprob": None, "prompt_id": ""}
    row |= {"rules_version": 1, "seed": -1}
    rows = [row | {"key": str(i), "n_t5_tokens": value} for i, value in enumerate(values)]
    return pa.Table.from_pylist(rows, schema=CAPTIONS.arrow)


def edge_of(threshold: Threshold, table: pa.Table) -> Edge:
    found = EdgePass(threshold)
    for start in range(0, table.num_rows, 7):
        part = table.slice(start, 7)
        found.add(measured(threshold.measure, part), sample_ids(part), part)
    return found.edge()


@given(VALUES, st.integers(0, 100))
def test_the_edge_holds_the_nearest_of_both_sides(values: list[int | None], limit: int) -> None:
    edge = edge_of(Threshold("n_t5_tokens", "tokens", "", most=float(limit)), captions(values))
    known = [value for value in values if value is not None]
    kept, dropped = [v for v in known if v <= limit], [v for v in known if v > limit]
    assert (edge.kept, edge.dropped, edge.unknown) == (len(kept), len(dropped), len(values) - len(known))
    assert [one.value for one in edge.just_kept] == sorted(kept, reverse=True)[:EDGE_SAMPLES]
    assert [one.value for one in edge.just_dropped] == sorted(dropped)[:EDGE_SAMPLES]


def test_a_range_drops_on_both_sides() -> None:
    edge = edge_of(Threshold("n_t5_tokens", "tokens", "", least=10, most=20), captions([9, 10, 15, 20, 21, 40]))
    assert (edge.kept, edge.dropped) == (3, 3)
    assert {one.value for one in edge.just_dropped} == {9, 21, 40}
    assert edge.threshold.spelt == "tokens at least 10 and at most 20"


def test_a_limit_that_float32_cannot_hold_keeps_its_own_value() -> None:
    edge = edge_of(Threshold("repeated_4grams", "repetition", "", most=0.2), captions([1, 2]))
    assert (edge.kept, edge.dropped) == (2, 0)


def test_short_captions_are_not_judged_where_the_rule_does_not() -> None:
    threshold = Threshold("n_t5_tokens", "tokens", "", most=5, min_words=41)
    assert edge_of(threshold, captions([9], words=41)).dropped == 1
    assert edge_of(threshold, captions([9], words=40)).unknown == 1


@pytest.mark.parametrize(("measure", "value"), [("min_side", 320), ("aspect", 2), ("pixels", 640 * 320), ("flags", 0)])
def test_measures_follow_from_the_columns(measure: str, value: float) -> None:
    assert measured(measure, captions([1])).tolist() == [value]


@pytest.mark.parametrize(("words", "keep", "expected"), [(("ok",), True, 1.0), (("ok",), False, 0.0)])
def test_words_are_kept_or_not(words: tuple[str, ...], keep: bool, expected: float) -> None:
    table = captions([1])
    values = in_words(Threshold("status", "status", "", words=words, keep=keep), table)
    assert np.array_equal(values, [expected])
