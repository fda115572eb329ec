from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.select.recipe import Recipe, parse_recipe
from curation.select.render import render
from curation.select.run import Outcome, select
from curation.select.tables import open_tables
from schemas.errors import DatasetError, UserError
from schemas.reading import open_dataset


def run(page: str, *tables: str) -> Outcome:
    return select(open_tables(tables, "caption"), parse_recipe(page, "recipe"))


def chosen(outcome: Outcome) -> list[str]:
    return [f"{row['shard']}/{row['key']}" for row in outcome.joined.pairs(outcome.alive).to_pylist()]


def ranges(**thresholds: float) -> str:
    return "".join(f"[[filter]]\ncolumn = {name!r}\nmin = {value}\n" for name, value in thresholds.items())


def test_columns_of_datasets_files_and_maps_are_asked_by_name(write_measures: Any, write_file: Any) -> None:
    measures = write_measures(
        {
            "s0": [
                {"key": "a", "width": 900, "height": 300, "extra": [("aesthetic", 6.0)]},
                {"key": "b", "extra": [("aesthetic", 4.0)]},
                {"key": "c"},
            ],
            "s1": [{"key": "a", "extra": [("aesthetic", 7.0)]}],
        }
    )
    scores = write_file({"shard": ["s1", "s0", "s0", "s0"], "key": ["a", "a", "b", "c"], "clip": [0.3, 0.1, None, 0.4]})
    assert chosen(run(ranges(aesthetic=5), measures)) == ["s0/a", "s1/a"]
    assert chosen(run(ranges(clip=0.2), measures, scores)) == ["s0/c", "s1/a"]
    assert chosen(run("[[filter]]\ncolumn = 'scores.clip'\nmin = 0.2\nallow_null = true", scores)) == [
        "s0/b",
        "s0/c",
        "s1/a",
    ]
    assert chosen(run("[[filter]]\ncolumn = 'aspect'\nmax = 2", measures)) == ["s0/b", "s0/c", "s1/a"]
    assert chosen(run(ranges(min_side=400), measures)) == ["s0/b", "s0/c", "s1/a"]
    assert chosen(run("[[filter]]\ncolumn = 'shard'\nnot_in = ['s0']", measures)) == ["s1/a"]


def test_lists_count_by_length_and_may_lack_words(write_nouns: Any, write_file: Any) -> None:
    nouns = write_nouns({"s0": {"a": ["barn"], "b": ["barn", "river"], "c": []}})
    flags = write_file({"key": ["a", "b", "c"], "flags": [["leak"], [], None]}, "marks")
    assert chosen(run(ranges(distinct=1), nouns)) == ["s0/a", "s0/b"]
    page = "[[filter]]\ncolumn = 'flags'\nabsent = ['leak', 'x']"
    assert chosen(run(page, nouns, flags)) == ["s0/b"]
    assert chosen(run(page + "\nallow_null = true", nouns, flags)) == ["s0/b", "s0/c"]


def test_values_are_compared_in_the_columns_own_type(write_file: Any) -> None:
    table = write_file({"shard": ["s"] * 3, "key": ["a", "b", "c"], "label": pa.array([1, 2, None], pa.int16())})
    assert chosen(run("[[filter]]\ncolumn = 'label'\nin = [2, 3]", table)) == ["s/b"]
    assert chosen(run("[[filter]]\ncolumn = 'label'\nnot_in = [2]", table)) == ["s/a"]


def test_samples_without_a_row_go_by_a_filter_of_their_own(
    write_measures: Any, write_nouns: Any, write_file: Any
) -> None:
    measures = write_measures({"s0": [{"key": "a"}, {"key": "b"}, {"key": "c"}]})
    nouns = write_nouns({"s0": {"b": ["barn"], "d": ["sky"]}})
    scores = write_file({"key": ["a", "b", "zz"], "clip": [1.0, 1.0, 1.0]})
    outcome = run(ranges(clip=1), measures, nouns, scores)
    assert [(row.name, row.total, row.marginal, row.unique) for row in outcome.funnel] == [
        ("no measures row", 1, 1, 0),
        ("no nouns row", 2, 2, 1),
        ("no scores row", 2, 0, 0),
        ("clip >= 1", 0, 0, 0),
    ]
    assert [(table.rows, table.missing, table.unmatched) for table in outcome.tables] == [
        (3, 1, 0),
        (2, 2, 0),
        (3, 2, 1),
    ]
    assert chosen(outcome) == ["s0/b"]
    # Of samples that stay without a row, the table's filters are not asked.
    page = "[missing]\nnouns = 'keep'\nscores = 'keep'\n" + ranges(clip=2)
    assert chosen(run(page, measures, nouns, scores)) == ["s0/c"]
    cap = "[missing]\nnouns = 'keep'\n[[filter]]\ncolumn = 'distinct'\ncap = 1"
    assert chosen(run(cap, measures, nouns)) == ["s0/a", "s0/b", "s0/c"]


def test_of_duplicates_the_preferred_one_stays_then_the_first(write_measures: Any) -> None:
    rows = [
        {"key": "a", "phash": 0b0000},
        {"key": "b", "phash": 0b0011, "width": 5000},
        {"key": "c", "phash": 0b0111},
        {"key": "d", "phash": 0xFF << 56},
        {"key": "e", "phash": None},
        {"key": "f", "phash": 0xFF << 56},
    ]
    measures = write_measures({"s0": rows})
    page = "[[filter]]\ncolumn = 'phash'\nwithin = 2\n"
    assert chosen(run(page, measures)) == ["s0/a", "s0/c", "s0/d", "s0/e"]
    assert chosen(run(page + "prefer = 'pixels'", measures)) == ["s0/b", "s0/d", "s0/e"]
    # What an earlier filter took leaves its copies in peace.
    assert chosen(run("[[filter]]\ncolumn = 'key'\nnot_in = ['d']\n" + page, measures))[-1] == "s0/f"


def test_a_noun_cap_tells_the_nouns_before_and_after(write_nouns: Any) -> None:
    nouns = write_nouns({"s0": {f"{i:03d}": ["sky", "newt"] if i < 5 else ["sky"] for i in range(200)}})
    outcome = run("[[filter]]\ncolumn = 'distinct'\ncap = 10\n", nouns)
    (balance,) = outcome.nouns
    assert (balance.before.samples, balance.before.top) == (200, (("sky", 200), ("newt", 5)))
    assert 10 <= balance.after.samples == outcome.selected <= 15
    assert balance.after.entropy_bits > balance.before.entropy_bits
    assert chosen(outcome)[:5] == [f"s0/{i:03d}" for i in range(5)]


@pytest.mark.parametrize("rule", ["llava", "metaclip"])
def test_a_word_that_a_file_repeats_in_a_list_counts_once(rule: str, write_file: Any) -> None:
    keys = [f"{n:03d}" for n in range(300)]
    page = f"[[filter]]\ncolumn = 'tags'\ncap = 50\nrule = '{rule}'\n"
    once = [["cat", "dog"] if n % 3 else [] for n in range(300)]
    often = [["cat", "dog", "cat", "cat"] if n % 3 else [] for n in range(300)]
    found = [
        run(page, write_file({"shard": ["s"] * 300, "key": keys, "tags": tags}, row_group_size=70))
        for tags in (once, often)
    ]
    assert found[0].nouns == found[1].nouns
    assert chosen(found[0]) == chosen(found[1])


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (ranges(beauty=1), "no column beauty; there are measures.aesthetic, measures.aspect, measures.height"),
        (ranges(width=1), "width is in several tables; write measures.width or other.width"),
        ("[missing]\ncaptions = 'keep'", "missing.captions is no table here; there are measures, other"),
        ("[[filter]]\ncolumn = 'label'\nmin = 1", "min and max need numbers or lists, and the column is string"),
        (
            "[[filter]]\ncolumn = 'other.width'\nabsent = ['x']",
            "absent needs lists of strings, and the column is int64",
        ),
        ("[[filter]]\ncolumn = 'other.width'\nin = ['x']", "the column is int64, and cannot be"),
        ("[[filter]]\ncolumn = 'label'\nwithin = 3", "within needs 64-bit hashes as whole numbers"),
        (
            "[[filter]]\ncolumn = 'phash'\nwithin = 3\nprefer = 'label'",
            "prefer needs numbers, and the column is string",
        ),
        ("[[filter]]\ncolumn = 'label'\ncap = 3", "other.label: is string, expected lists of strings"),
    ],
)
def test_columns_that_do_not_exist_or_fit_are_told_in_one_line(
    write_measures: Any, write_file: Any, page: str, complaint: str
) -> None:
    measures = write_measures({"s0": [{"key": "a", "extra": [("aesthetic", 5.0)]}]})
    other = write_file({"key": ["a"], "width": [3], "label": ["x"]}, "other")
    with pytest.raises(UserError) as error:
        run(page, measures, other)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_tables_that_cannot_be_joined_are_refused(write_measures: Any, write_file: Any, tmp_path: Path) -> None:
    measures = write_measures({"s0": [{"key": "a"}], "s1": [{"key": "a"}, {"key": "b"}]})
    with pytest.raises(UserError, match="a is a key of several shards"):
        run(ranges(clip=0), measures, write_file({"key": ["a"], "clip": [1]}))
    with pytest.raises(DatasetError, match="two rows are of b"):
        run(ranges(clip=0), measures, write_file({"key": ["b", "b"], "clip": [1, 2]}))
    with pytest.raises(DatasetError, match="two rows are of s1/b"):
        run(ranges(clip=0), measures, write_file({"shard": ["s1"] * 2, "key": ["b", "b"], "clip": [1, 2]}))
    with pytest.raises(UserError, match="no table says in which shards"):
        run(ranges(clip=0), write_file({"key": ["b"], "clip": [1]}))
    with pytest.raises(UserError, match="a row has no shard or no key"):
        run(ranges(clip=0), write_file({"shard": ["s", None], "key": ["b", "c"], "clip": [1, 2]}))
    with pytest.raises(UserError, match="no column key; it has id"):
        run(ranges(clip=0), write_file({"id": ["b"], "clip": [1]}))
    with pytest.raises(UserError, match="key is int64, expected strings"):
        run(ranges(clip=0), write_file({"key": [3], "clip": [1]}))
    with pytest.raises(UserError, match="2 tables are called measures"):
        run(ranges(clip=0), measures, measures)
    with pytest.raises(UserError, match="neither a dataset nor a file"):
        run(ranges(clip=0), str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="s2: not made yet"):
        run(ranges(clip=0), write_measures({"s0": [{"key": "a"}]}, "unfinished", ["s2"]))


def test_a_file_that_is_damaged_within_is_told_in_one_line(write_file: Any) -> None:
    path = Path(write_file({"shard": ["s"] * 99, "key": [f"{n:x}" for n in range(99)], "clip": list(range(99))}))
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(byte ^ 0x5A for byte in content[4:60])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.parquet: damaged [^\n]*$"):
        run(ranges(clip=1), str(path))


def test_two_tables_of_a_kind_are_told_apart_by_names(write_measures: Any) -> None:
    one = write_measures({"s0": [{"key": "a", "sharpness": 1.0}]}, "one")
    two = write_measures({"s0": [{"key": "a", "sharpness": 9.0}]}, "two")
    page = "[[filter]]\ncolumn = 'b.sharpness'\nmin = 5"
    assert run(page, f"a={one}", f"b={two}").selected == 1
    assert run(page, f"b={one}", f"a={two}").selected == 0


def test_a_caption_column_that_was_not_counted_is_named(write_nouns: Any) -> None:
    with pytest.raises(UserError, match="counted are raw_caption, caption, not generated"):
        open_tables([write_nouns({"s0": {"a": ["barn"]}})], "generated")


def test_units_and_lists_without_anything_do_no_harm(write_measures: Any, write_nouns: Any, write_file: Any) -> None:
    measures = write_measures({"s0": [], "s1": [{"key": "a"}, {"key": "b"}], "s2": []})
    nouns = write_nouns({"s0": {}, "s1": {"a": ["barn"], "b": []}, "s2": {}})
    page = "[[filter]]\ncolumn = 'distinct'\ncap = 3\n" + ranges(width=1)
    assert chosen(run(page, measures, nouns)) == ["s1/a"]
    nothing = run(page, write_measures({"s0": []}, "none"), write_nouns({"s0": {}}, "no-nouns"))
    assert (nothing.samples, nothing.selected) == (0, 0)
    lists = write_file({"key": ["a", "b"], "words": [["x", None], []]}, "lists")
    with pytest.raises(UserError, match="a list has a null among its words"):
        run("[[filter]]\ncolumn = 'words'\ncap = 3", measures, lists)


def test_nothing_left_is_no_selection(write_measures: Any) -> None:
    outcome = run(ranges(width=9999), write_measures({"s0": [{"key": "a"}]}))
    with pytest.raises(UserError, match=r"nothing of 1 samples is left.*Loosen the recipe"):
        outcome.selection()


def test_a_column_that_nobody_filled_is_named(write_measures: Any, write_file: Any) -> None:
    scores = write_file({"key": ["a"], "clip": pa.array([None], pa.float32())})
    outcome = run(ranges(width=1, clip=0), write_measures({"s0": [{"key": "a"}]}), scores)
    assert outcome.blank == ("clip",)
    assert "No sample has a value in clip." in render(outcome)
    with pytest.raises(UserError, match="No sample has a value in clip: have it made"):
        outcome.selection()


values = st.integers(0, 3) | st.none()
samples = st.lists(
    st.tuples(st.sampled_from(["s0", "s1"]), st.integers(0, 30), values, values, st.integers(0, 15)),
    unique_by=lambda row: row[:2],
    min_size=1,
    max_size=40,
)
PAGE = """
[[filter]]
column = "one"
min = 1
[[filter]]
column = "other"
in = [0, 2]
allow_null = true
[[filter]]
column = "hash"
within = 1
prefer = "one"
[[filter]]
column = "words"
cap = 2
skip_below = 1
"""


def write_samples(path: Path, rows: list[tuple[Any, ...]], group: int) -> str:
    columns: dict[str, Any] = dict(zip(("shard", "key", "one", "other", "hash"), zip(*rows, strict=True), strict=True))
    columns["key"] = [f"k{key:02d}" for key in columns["key"]]
    columns["one"], columns["other"] = (pa.array(columns[name], pa.int32()) for name in ("one", "other"))
    words = [[f"w{bit}" for bit in range(3) if value >> bit & 1] for value in columns["hash"]]
    columns["words"] = pa.array(words, pa.list_(pa.string()))
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return str(path)


@given(samples, st.integers(1, 50), st.randoms(use_true_random=False))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_neither_order_nor_parts_of_a_table_change_the_outcome(
    tmp_path: Path, rows: list[tuple[Any, ...]], group: int, random: Any
) -> None:
    whole = run(PAGE, write_samples(tmp_path / "t.parquet", rows, 100))
    random.shuffle(rows)
    other = run(PAGE, write_samples(tmp_path / "t.parquet", rows, group))
    assert chosen(whole) == chosen(other)
    told, again = whole.as_json(), other.as_json()
    for outcome in (told, again):
        outcome.pop("tables")  # the digest of another file
    assert told == again


@given(samples)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_the_funnel_adds_up_and_says_what_each_filter_takes(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    outcome = run(PAGE, write_samples(tmp_path / "t.parquet", rows, 100))
    left = outcome.samples
    for row in outcome.funnel:
        assert row.total >= row.marginal >= row.unique >= 0
        assert row.left == left - row.marginal
        left = row.left
    assert left == outcome.selected
    assert outcome.funnel[0].total == sum(one is None or one < 1 for _, _, one, _, _ in rows)
    assert outcome.funnel[1].total == sum(other not in (0, 2, None) for _, _, _, other, _ in rows)
    row_filters = PAGE.split("[[filter]]")[1:3]
    both = run("[[filter]]".join(["", *row_filters]), str(tmp_path / "t.parquet"))
    for position, row in enumerate(both.funnel):
        without = run("[[filter]]" + row_filters[1 - position], str(tmp_path / "t.parquet"))
        assert row.unique == without.selected - both.selected


def test_the_tables_digest_follows_from_content_alone(write_measures: Any) -> None:
    rows = {"s0": [{"key": "a"}]}
    first, second = (open_tables([write_measures(rows, name)], "caption")[0].digest for name in ("one", "two"))
    assert first == second
    assert first != open_tables([write_measures({"s0": [{"key": "b"}]}, "three")], "caption")[0].digest
    assert open_dataset(write_measures(rows, "four"), "measures").entries


def test_an_empty_recipe_keeps_every_sample(write_measures: Any) -> None:
    outcome = select(open_tables([write_measures({"s0": [{"key": "a"}]})], "caption"), Recipe())
    assert np.all(outcome.alive)
    assert outcome.funnel == ()
