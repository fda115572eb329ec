import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.nouns.counting import NOUN_KEYS, TOTAL_KEYS, CountingRules, NounCounter, NounCounts, count_texts
from curation.nouns.merging import merge_sorted, sum_by_keys
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, Tagger, TaggerInfo
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


def count_captions(column: str, texts: list[str | None], tagger: Tagger) -> NounCounts:
    counter = NounCounter(RULES)
    counter.add_empty(column, rows=0)
    found = count_texts(counter, column, texts, tagger)
    assert [caption is None for caption in found] == [text is None or not text.strip() for text in texts]
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
    assert counts.totals["column"].to_pylist() == ["caption"]
    assert counts.total("caption", "captions") == 0
    assert counts.total("other", "captions") == 0


@given(ROWS, st.integers(0, 12), st.integers(0, 12))
def test_the_counts_of_the_parts_add_up_to_the_counts_of_the_whole(rows: list[Row], one: int, two: int) -> None:
    cuts = sorted((one, two))
    parts = [counted(part) for part in (rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] :])]
    whole = counted(rows)
    assert sum_by_keys(pa.concat_tables([part.totals for part in parts]), TOTAL_KEYS).equals(whole.totals)
    merged = list(merge_sorted((iter([part.nouns]) for part in parts), NOUN_KEYS))
    assert pa.concat_tables([NOUNS.arrow.empty_table(), *merged]).equals(whole.nouns)


@given(ROWS)
def test_tables_are_sorted_by_column_and_noun_in_utf8_order(rows: list[Row]) -> None:
    counts = counted(rows)
    keys = [(r["column"].encode(), r["noun"].encode()) for r in counts.nouns.to_pylist()]
    assert keys == sorted(keys)
    NOUNS.check(counts.nouns.schema, "nouns")
    NOUN_TOTALS.check(counts.totals.schema, "totals")


def test_the_order_of_captions_does_not_show_in_the_tables() -> None:
    rows: list[Row] = [("caption", TaggedCaption(2, (TaggedNoun(n, False),))) for n in ("b", "a", "c")]
    assert counted(rows) == counted(rows[::-1])
