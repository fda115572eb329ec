from curation.nouns.counting import CountingRules, NounCounter
from curation.nouns.findings import table_rows
from curation.nouns.render import PAPER_CAPTIONS
from curation.nouns.spectrum import Counted
from curation.nouns.summary import NounSummary, summarise
from curation.nouns.tagger import Normalisation, TaggedCaption, TaggedNoun, TaggerInfo

RULES = CountingRules(TaggerInfo("en_test", "1", "0123456789", "3"), Normalisation.LOWER)


def corpus(captions: dict[str, int]) -> NounSummary:
    """Caption columns of so many captions, one of which holds a noun."""
    counter = NounCounter(RULES)
    for column in captions:
        counter.add_caption(column, TaggedCaption(1, (TaggedNoun("dog", False),)))
    counts = counter.counts()
    numbers = [captions[column] for column in counts.totals["column"].to_pylist()]
    totals = counts.totals.set_column(1, counts.totals.schema.field(1), [numbers])
    return summarise(RULES, totals, [counts.nouns])


def sizes(summary: NounSummary, at: tuple[int, ...] = ()) -> dict[str, list[int]]:
    """Of each column, the captions that its rows of all nouns are at."""
    rows = table_rows(summary, at)[0]
    return {c: [r.captions for r in rows if r.column == c and r.counted is Counted.BOTH] for c in summary.columns}


def test_more_captions_than_the_papers_are_also_shown_at_the_papers_number() -> None:
    summary = corpus({"caption": 2 * PAPER_CAPTIONS})
    assert sizes(summary) == {"caption": [2 * PAPER_CAPTIONS, PAPER_CAPTIONS]}
    assert table_rows(summary, ())[1] == []


def test_fewer_captions_than_the_papers_are_shown_as_they_are_and_it_is_said() -> None:
    summary = corpus({"caption": 1000})
    assert sizes(summary) == {"caption": [1000]}
    (note,) = table_rows(summary, ())[1]
    assert note.startswith("caption: 1,000 captions are fewer than the paper's 11,190,000")


def test_columns_of_different_sizes_meet_at_the_smallest() -> None:
    assert sizes(corpus({"caption": 1000, "raw_caption": 400})) == {"caption": [1000, 400], "raw_caption": [400]}


def test_sizes_that_were_asked_for_are_shown_where_they_were_counted() -> None:
    summary = corpus({"caption": 1000, "raw_caption": 400})
    assert sizes(summary, (500, 400)) == {"caption": [1000, 400, 500], "raw_caption": [400]}
    assert "raw_caption at 500: not shown, only 400 captions were counted." in table_rows(summary, (500,))[1]
