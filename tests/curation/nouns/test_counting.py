import random
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.nouns.counting import (
    CountingRules,
    NounCounter,
    NounCounts,
    count_captions,
    counts_of_tables,
    merge_counts,
    no_counts,
)
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, Tagger, TaggerInfo
from schemas.errors import UserError
from schemas.tables import NOUN_TOTALS, NOUNS

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)

NOUN = st.builds(TaggedNoun, st.sampled_from(["dog", "rose", "été", "名", "z"]), st.booleans())
CAPTION = st.builds(
    lambda extra, nouns: TaggedCaption(extra + len(nouns), tuple(nouns)), st.integers(0, 5), st.lists(NOUN)
)
ROW = st.tuples(st.sampled_from(["raw_caption", "caption"]), st.none() | CAPTION)
ROWS = st.lists(ROW, max_size=12)
Row = tuple[str, TaggedCaption | None]


def counted(rows: list[Row]) -> NounCounts:
    counter = NounCounter(RULES)
    for column, caption in rows:
        if caption is None:
            counter.add_empty(column)
        else:
            counter.add_caption(column, caption)
    return counter.counts()


def as_dict(counts: NounCounts) -> dict[str, dict[str, int]]:
    return {row.pop("noun"): row for row in counts.nouns.drop(["column"]).to_pylist()}


def test_a_noun_seen_as_both_kinds_in_one_caption_counts_once_in_df(tagger: Tagger) -> None:
    counts = count_captions("caption", ["a Rose and a rose by a rose", "Rose"], tagger)
    assert as_dict(counts) == {"rose": {"tf_noun": 2, "tf_propn": 2, "df_noun": 1, "df_propn": 2, "df": 2}}


def test_totals_count_captions_empties_and_tokens(tagger: Tagger) -> None:
    counts = count_captions("caption", ["the dog in Paris", None, "", " \n", "green"], tagger)
    (row,) = counts.totals.to_pylist()
    assert row == {"column": "caption", "captions": 2, "empty": 3, "tokens": 5, "nouns": 1, "propns": 1}


def test_a_column_without_captions_is_still_known(tagger: Tagger) -> None:
    counts = count_captions("caption", [], tagger)
    assert counts.columns == ("caption",)
    assert counts.total("caption", "captions") == 0
    assert counts.total("other", "captions") == 0


@given(ROWS, ROWS)
def test_merging_is_commutative(left: list[Row], right: list[Row]) -> None:
    assert counted(left).merge(counted(right)) == counted(right).merge(counted(left))


@given(ROWS, ROWS, ROWS)
def test_merging_is_associative(a: list[Row], b: list[Row], c: list[Row]) -> None:
    x, y, z = counted(a), counted(b), counted(c)
    assert x.merge(y).merge(z) == x.merge(y.merge(z))


@given(ROWS)
def test_no_counts_are_the_identity_of_merging(rows: list[Row]) -> None:
    counts = counted(rows)
    assert counts.merge(no_counts(RULES)) == counts == no_counts(RULES).merge(counts)


@given(ROWS, st.integers(0, 12))
def test_the_counts_of_the_parts_merge_to_the_counts_of_the_whole(rows: list[Row], cut: int) -> None:
    assert counted(rows[:cut]).merge(counted(rows[cut:])) == counted(rows)


def test_many_parts_merge_to_the_whole_in_any_order() -> None:
    draw = random.Random(0)
    rows: list[Row] = [
        (
            "caption",
            TaggedCaption(9, tuple(TaggedNoun(f"n{draw.randrange(50)}", draw.random() < 0.3) for _ in range(5))),
        )
        for _ in range(400)
    ]
    parts = [counted(rows[i : i + 2]) for i in range(0, 400, 2)]
    draw.shuffle(parts)
    assert merge_counts(RULES, parts) == counted(rows)


@given(ROWS)
def test_tables_are_sorted_by_column_and_noun_in_utf8_order(rows: list[Row]) -> None:
    counts = counted(rows).merge(no_counts(RULES))
    keys = [(r["column"].encode(), r["noun"].encode()) for r in counts.nouns.to_pylist()]
    assert keys == sorted(keys)
    NOUNS.check(counts.nouns.schema, "nouns")
    NOUN_TOTALS.check(counts.totals.schema, "totals")


def test_counts_survive_parquet(tmp_path: object, tagger: Tagger) -> None:
    counts = count_captions("caption", ["the dog in Paris", "a cat"], tagger)
    pq.write_table(counts.nouns, f"{tmp_path}/n.parquet")
    pq.write_table(counts.totals, f"{tmp_path}/t.parquet")
    back = counts_of_tables(
        counts.rules, pq.read_table(f"{tmp_path}/n.parquet"), pq.read_table(f"{tmp_path}/t.parquet")
    )
    assert back == counts


def test_the_order_of_captions_does_not_show_in_the_tables() -> None:
    rows: list[Row] = [("caption", TaggedCaption(2, (TaggedNoun(n, False),))) for n in ("b", "a", "c")]
    assert counted(rows) == counted(rows[::-1])


def test_counts_of_two_taggers_are_never_added() -> None:
    other = replace(RULES, tagger=replace(RULES.tagger, version="2"))
    with pytest.raises(UserError, match=r"en_test 2 .* cannot be added to counts by en_test 1"):
        no_counts(RULES).merge(no_counts(other))
