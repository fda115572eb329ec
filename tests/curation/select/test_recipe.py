from importlib import resources
from pathlib import Path

import pytest

from curation.select.recipe import Absent, Duplicates, NounCap, Range, Values, parse_recipe, read_recipe
from schemas.errors import UserError

PAGE = """
name = "all kinds"
[missing]
scores = "keep"
[[filter]]
column = "captions.status"
in = ["ok", "trimmed"]
[[filter]]
name = "large"
column = "measures.min_side"
min = 256
[[filter]]
column = "punsafe"
max = 0.5
allow_null = true
[[filter]]
column = "flags"
absent = ["leak"]
[[filter]]
column = "phash"
within = 4
prefer = "measures.pixels"
[[filter]]
column = "nouns.distinct"
cap = 100
skip_below = 3
"""


def test_a_page_of_every_kind_is_read_as_it_stands() -> None:
    recipe = parse_recipe(PAGE, "recipe")
    assert (recipe.name, dict(recipe.missing)) == ("all kinds", {"scores": "keep"})
    assert [one.test for one in recipe.filters] == [
        Values("captions.status", ("ok", "trimmed"), keep=True),
        Range("measures.min_side", min=256),
        Range("punsafe", max=0.5, allow_null=True),
        Absent("flags", ("leak",)),
        Duplicates("phash", 4, "measures.pixels"),
        NounCap("nouns.distinct", 100, "llava", 3, 0),
    ]
    assert [one.name for one in recipe.filters] == [
        "captions.status in ok, trimmed",
        "large",
        "punsafe <= 0.5",
        "flags without leak",
        "duplicates (phash within 4 bits)",
        "llava noun cap 100",
    ]


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("filter", "not TOML"),
        ("filters = []", "unknown key filters; known here are description, filter, missing, name"),
        ("filter = 3", "filter is 3, expected a list"),
        ("filter = [3]", "filter 1: not a table"),
        ("[[filter]]\ncolumn = 'a'", "filter 1: needs a column and one of min, max"),
        ("[[filter]]\nmin = 3", "filter 1: needs a column"),
        ("[[filter]]\ncolumn = 'a'\nmin = 'x'", "min is 'x', expected a number"),
        ("[[filter]]\ncolumn = 'a'\nmin = true", "min is True, expected a number"),
        ("[[filter]]\ncolumn = 'a'\nmin = nan", "min is nan, expected a number"),
        ("[[filter]]\ncolumn = 'a'\nmin = 1\nin = [2]", "unknown key in"),
        ("[[filter]]\ncolumn = 'a'\nmn = 1\nmin = 1", "unknown key mn"),
        ("[[filter]]\ncolumn = 'a'\nin = []", "give a list of words, numbers or booleans"),
        ("[[filter]]\ncolumn = 'a'\nabsent = [1]", "give a list of words"),
        ("[[filter]]\ncolumn = 'a'\nwithin = 8", "within is 8, expected a whole number of 0 to 7"),
        ("[[filter]]\ncolumn = 'a'\ncap = 0", "cap is 0, expected a whole number of 1"),
        ("[[filter]]\ncolumn = 'a'\ncap = 9\nrule = 'x'", "rule 'x' is unknown; choose llava or metaclip"),
        ("[missing]\na = 'maybe'", "missing.a is 'maybe'; say keep or drop"),
        ("[[filter]]\ncolumn = 'a'\nmin = 1\n[[filter]]\ncolumn = 'a'\nmin = 1", "two filters are called 'a >= 1'"),
    ],
)
def test_a_mistake_is_told_in_one_line_that_says_where(page: str, complaint: str) -> None:
    with pytest.raises(UserError) as error:
        parse_recipe(page, "recipe r.toml")
    assert str(error.value).startswith("recipe r.toml")
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_names_the_recipes_that_are_shipped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Give a file, or one of laion-aesthetic, noun-balanced-llava"):
        read_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "odd.toml").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        read_recipe(str(tmp_path / "odd.toml"))


def test_every_shipped_recipe_can_be_read_by_its_name() -> None:
    names = [Path(entry.name).stem for entry in (resources.files("curation.select") / "recipes").iterdir()]
    assert len(names) == 4
    for name in names:
        recipe = read_recipe(name)
        assert recipe.name == name
        assert recipe.description
        assert recipe.filters
