from hypothesis import given
from hypothesis import strategies as st

from curation.nouns.counting import CountingRules, NounCounter, NounCounts
from curation.nouns.spectrum import Counted
from curation.nouns.statistics import noun_statistics, top_nouns
from curation.nouns.summary import summarise
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)
NOUN = st.builds(TaggedNoun, st.sampled_from(["dog", "rose", "été", "名", "z"]), st.booleans())
ROWS = st.lists(st.tuples(st.sampled_from(["raw_caption", "caption"]), st.lists(NOUN)), max_size=25)


def counted(rows: list[tuple[str, list[TaggedNoun]]]) -> NounCounts:
    counter = NounCounter(RULES)
    for column, nouns in rows:
        counter.add_caption(column, TaggedCaption(len(nouns), tuple(nouns)))
    return counter.counts()


@given(ROWS, st.integers(1, 4))
def test_statistics_from_blocks_are_those_from_all_counts(rows: list[tuple[str, list[TaggedNoun]]], block: int) -> None:
    counts = counted(rows)
    blocks = (counts.nouns.slice(start, block) for start in range(0, counts.nouns.num_rows, block))
    summary = summarise(RULES, counts.totals, blocks)
    assert summary.columns == counts.columns
    for column in counts.columns:
        assert summary.total(column, "captions") == counts.total(column, "captions")
        for kind in Counted:
            assert noun_statistics(summary, column, kind) == noun_statistics(counts, column, kind)
            assert top_nouns(summary, column, kind, 3) == top_nouns(counts, column, kind, 3)


def test_the_spectrum_counts_nouns_by_occurrences_and_by_captions() -> None:
    dog, rex = TaggedNoun("dog", False), TaggedNoun("rex", True)
    spectrum = counted([("caption", [dog, dog, rex]), ("caption", [dog])]).spectrum("caption", Counted.BOTH)
    assert (spectrum.tf.tolist(), spectrum.tf_nouns.tolist()) == ([1, 3], [1, 1])
    assert (spectrum.df.tolist(), spectrum.df_nouns.tolist()) == ([1, 2], [1, 1])
    assert (spectrum.captions, spectrum.occurrences, spectrum.distinct, spectrum.singles) == (2, 4, 2, 1)
    assert (spectrum.above(2), spectrum.above(3)) == (1, 0)
