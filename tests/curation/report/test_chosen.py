"""Samples chosen while tables go by: the same ones, whatever the cut into units, in bounded memory."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.report.chosen import SHOWN_COLUMNS, Nearest
from curation.report.samples import sample_ids
from schemas.tables import CAPTIONS


def captions(keys: list[int]) -> pa.Table:
    """Rows with nothing but a key."""
    values = {"string": "", "int32": 0, "int64": 0, "float": 0.0, "list<element: string>": []}
    empty = {f.name: values.get(str(f.type), []) for f in CAPTIONS.arrow}
    rows = [empty | {"shard": "s", "key": str(key)} for key in keys]
    return pa.Table.from_pylist(rows, schema=CAPTIONS.arrow)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 7))
def test_the_lowest_scores_win_however_the_rows_are_cut(scores: list[int], limit: int, cut: int) -> None:
    table = captions(list(range(len(scores))))
    ids, values = sample_ids(table), np.array(scores, dtype=np.float64)
    whole, parts = Nearest(limit), Nearest(limit)
    whole.add(values, ids, table)
    for start in range(0, len(scores), cut):
        part = slice(start, start + cut)
        parts.add(values[part], ids[part], table.slice(start, cut))
    assert whole.kept() == parts.kept()
    assert [one.value for one in whole.kept()] == sorted(scores)[:limit]


def test_rows_without_a_score_are_no_candidates() -> None:
    table = captions([0, 1, 2])
    nearest = Nearest(5)
    nearest.add(np.array([np.nan, 2.0, np.nan]), sample_ids(table), table)
    assert [sample.key for sample in nearest.samples()] == ["1"]


def test_a_huge_text_is_cut() -> None:
    table = captions([0])
    column = table.schema.get_field_index("generated")
    table = table.set_column(column, table.schema.field(column), pa.array(["x" * 100_000]))
    nearest = Nearest(1)
    nearest.add(np.zeros(1), sample_ids(table), table)
    (sample,) = nearest.samples()
    assert len(sample.generated) < 4100
    assert sample.generated.endswith("(100,000 characters)")
    assert set(SHOWN_COLUMNS) <= set(table.column_names)
