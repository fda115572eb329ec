from curation.nouns.inputs import CaptionRow
from curation.nouns.per_image import per_image_table
from curation.nouns.tagger import TaggedCaption, TaggedNoun
from schemas.tables import NOUNS_PER_IMAGE

DOG, REX = TaggedNoun("dog", False), TaggedNoun("rex", True)


def test_several_captions_of_one_row_count_as_one() -> None:
    rows = [CaptionRow({"captions": ["a", None, "b"]}, key="k", shard="s"), CaptionRow({"captions": ["c"]}, key="l")]
    tagged = {"captions": [TaggedCaption(3, (REX, DOG)), None, TaggedCaption(2, (DOG,)), TaggedCaption(1, ())]}
    first, second = per_image_table(rows, tagged).to_pylist()
    assert first == {
        "key": "k",
        "shard": "s",
        "column": "captions",
        "nouns": 2,
        "propns": 1,
        "tokens": 5,
        "distinct": ["dog", "rex"],
    }
    assert (second["nouns"], second["tokens"], second["distinct"]) == (0, 1, [])


def test_no_rows_give_an_empty_table_of_the_schema() -> None:
    table = per_image_table([], {"caption": []})
    assert table.num_rows == 0
    NOUNS_PER_IMAGE.check(table.schema, "here")
