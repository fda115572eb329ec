"""Words counted in Arrow's own buffers are those that a person counts."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.report.words import count_words

TEXTS = st.lists(st.text(alphabet="ab é\t\n字 ", max_size=12), max_size=20)


@given(TEXTS, st.integers(0, 20), st.integers(0, 20))
def test_words_are_runs_without_white_space(texts: list[str], start: int, length: int) -> None:
    column = pa.chunked_array([texts, texts[:3]], pa.string()).slice(start, length)
    expected = [len(text.encode().split()) for text in [*texts, *texts[:3]][start : start + length]]
    assert count_words(column).tolist() == expected


def test_no_rows_have_no_words() -> None:
    assert count_words(pa.chunked_array([], pa.string())).tolist() == []
    assert count_words(pa.chunked_array([["", "", ""]])).tolist() == [0, 0, 0]
