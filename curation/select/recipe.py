"""A recipe: a page of thresholds in TOML that says which samples to keep. docs/select.md tells the keys.

[[filter]]
column = "captions.status"
in = ["ok", "trimmed"]

[[filter]]
column = "aesthetic"
min = 5.0
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from schemas.errors import UserError

LARGEST_DISTANCE: Final = 7
"""Bits between two perceptual hashes up to which all pairs are found in reasonable time."""

Scalar: TypeAlias = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Range:
    """Keeps rows with min <= value <= max. Of a list, its length counts."""

    column: str
    min: float | None = None
    max: float | None = None
    allow_null: bool = False


@dataclass(frozen=True, slots=True)
class Values:
    """Keeps rows whose value is one of `values`, or with `keep` False those whose value is none of them."""

    column: str
    values: tuple[Scalar, ...]
    keep: bool
    allow_null: bool = False


@dataclass(frozen=True, slots=True)
class Absent:
    """Keeps rows whose list has none of `words`."""

    column: str
    words: tuple[str, ...]
    allow_null: bool = False


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Of rows whose hashes are within so many bits of a better row that was kept, keeps only that one.

    Better is what has the larger `prefer`, then what comes first by shard and key. Rows without a hash stay.
    """

    column: str
    within: int
    prefer: str | None = None


@dataclass(frozen=True, slots=True)
class NounCap:
    """Keeps rows so that frequent nouns weigh less, see `curation.select.noun_cap`."""

    column: str
    cap: int
    rule: Literal["llava", "metaclip"] = "llava"
    skip_below: int = 0
    seed: int = 0


Test: TypeAlias = Range | Values | Absent | Duplicates | NounCap


@dataclass(frozen=True, slots=True)
class Filter:
    """One line of the funnel."""

    name: str
    test: Test

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose values it looks at."""
        if isinstance(self.test, NounCap):
            return ()
        if isinstance(self.test, Duplicates) and self.test.prefer is not None:
            return (self.test.column, self.test.prefer)
        return (self.test.column,)

    @property
    def word_columns(self) -> tuple[str, ...]:
        """The columns of lists of whose words it takes account."""
        return (self.test.column,) if isinstance(self.test, NounCap) else ()

    @property
    def depends_on_others(self) -> bool:
        """Whether what becomes of a sample depends on which others are left, and so on the filters before."""
        return isinstance(self.test, Duplicates | NounCap)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Filters in order. `missing` says by table whether samples without a row there stay; without a word they go."""

    name: str = ""
    description: str = ""
    missing: Mapping[str, Literal["keep", "drop"]] = field(default_factory=dict)
    filters: tuple[Filter, ...] = ()


def read_recipe(name: str) -> Recipe:
    """The recipe in the file `name`, or the shipped one of that name.

    Raises `UserError` for what is no recipe: not TOML, unknown keys, values of another type.
    """
    path = Path(name)
    shipped = {Path(entry.name).stem: entry for entry in (resources.files(__package__) / "recipes").iterdir()}
    try:
        if name in shipped and not path.is_file():
            text = shipped[name].read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"--recipe {name}: cannot be read ({error.strerror}). Give a file, or one of {', '.join(sorted(shipped))}."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"--recipe {name}: not UTF-8 text. Give a TOML file.") from None
    return parse_recipe(text, f"recipe {name}", path.stem)


def parse_recipe(text: str, where: str, name: str = "") -> Recipe:
    """The recipe in the TOML `text`; `where` names it in errors, `name` is its name unless it gives one itself."""
    try:
        page = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: not TOML ({error}). Mend it.") from None
    _known(page, {"name", "description", "missing", "filter"}, where)
    missing = _take(page, "missing", dict, where) or {}
    for table, what in missing.items():
        if what not in ("keep", "drop"):
            raise UserError(f"{where}: missing.{table} is {what!r}; say keep or drop.")
    given = _take(page, "filter", list, where) or []
    filters = [_filter(one, f"{where}, filter {number}") for number, one in enumerate(given, 1)]
    names = [one.name for one in filters]
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        raise UserError(f"{where}: two filters are called {twice!r}. Name one of them.")
    return Recipe(
        name=_take(page, "name", str, where) or name,
        description=_take(page, "description", str, where) or "",
        missing=missing,
        filters=tuple(filters),
    )


def range_filter(column: str, low: float | None = None, high: float | None = None) -> Filter:
    """The filter of a single threshold, named after it."""
    return _named(Range(column, low, high))


_TESTS: Final[Mapping[str, frozenset[str]]] = {
    "min": frozenset({"min", "max", "allow_null"}),
    "max": frozenset({"min", "max", "allow_null"}),
    "in": frozenset({"in", "allow_null"}),
    "not_in": frozenset({"not_in", "allow_null"}),
    "absent": frozenset({"absent", "allow_null"}),
    "within": frozenset({"within", "prefer"}),
    "cap": frozenset({"cap", "rule", "skip_below", "seed"}),
}
"""The keys that say what a filter tests, and which keys may stand beside each."""


def _filter(given: Any, where: str) -> Filter:
    if not isinstance(given, dict):
        raise UserError(f"{where}: not a table. Write it as [[filter]].")
    tests = [key for key in _TESTS if key in given]
    column = _take(given, "column", str, where)
    if not tests or column is None:
        raise UserError(f"{where}: needs a column and one of {', '.join(_TESTS)}.")
    _known(given, {"name", "column", *_TESTS[tests[0]]}, where)
    filter_ = _named(_test(tests[0], column, given, where))
    return Filter(_take(given, "name", str, where) or filter_.name, filter_.test)


def _test(kind: str, column: str, given: Mapping[str, Any], where: str) -> Test:
    allow_null = _take(given, "allow_null", bool, where) or False
    if kind in ("min", "max"):
        return Range(column, _number(given, "min", where), _number(given, "max", where), allow_null)
    if kind in ("in", "not_in"):
        values = _take(given, kind, list, where) or []
        if not values or not all(isinstance(value, str | int | float) for value in values):
            raise UserError(f"{where}: {kind} is {values!r}; give a list of words, numbers or booleans.")
        return Values(column, tuple(values), kind == "in", allow_null)
    if kind == "absent":
        words = _take(given, kind, list, where) or []
        if not words or not all(isinstance(word, str) for word in words):
            raise UserError(f"{where}: absent is {words!r}; give a list of words.")
        return Absent(column, tuple(words), allow_null)
    if kind == "within":
        within = _whole(given, "within", where, 0, LARGEST_DISTANCE)
        return Duplicates(column, within, _take(given, "prefer", str, where))
    rule = _take(given, "rule", str, where) or "llava"
    if rule not in ("llava", "metaclip"):
        raise UserError(f"{where}: rule {rule!r} is unknown; choose llava or metaclip.")
    return NounCap(
        column,
        cap=_whole(given, "cap", where, 1, 2**31),
        rule="llava" if rule == "llava" else "metaclip",
        skip_below=_whole(given, "skip_below", where, 0, 2**31) if "skip_below" in given else 0,
        seed=_whole(given, "seed", where, 0, 2**63) if "seed" in given else 0,
    )


def _named(test: Test) -> Filter:
    """The filter of `test`, with a name that says what it asks for."""
    if isinstance(test, Range):
        low, high = test.min, test.max
        if low is None:
            words = f"{test.column} <= {high:.10g}"
        elif high is None:
            words = f"{test.column} >= {low:.10g}"
        else:
            words = f"{low:.10g} <= {test.column} <= {high:.10g}"
    elif isinstance(test, Values):
        words = f"{test.column} {'in' if test.keep else 'not in'} {', '.join(map(str, test.values))}"
    elif isinstance(test, Absent):
        words = f"{test.column} without {', '.join(test.words)}"
    elif isinstance(test, Duplicates):
        words = f"duplicates ({test.column} within {test.within} bits)"
    else:
        words = f"{test.rule} noun cap {test.cap:,}"
    return Filter(words, test)


def _known(given: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(given.keys() - keys)
    if unknown:
        raise UserError(f"{where}: unknown key {', '.join(unknown)}; known here are {', '.join(sorted(keys))}.")


def _take(given: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = given.get(key)
    if value is not None and not isinstance(value, kind):
        raise UserError(f"{where}: {key} is {value!r}, expected a {_WORDS[kind]}.")
    return value


_WORDS: Final = {str: "string", list: "list", dict: "table", bool: "boolean"}


def _number(given: Mapping[str, Any], key: str, where: str) -> float | None:
    value = given.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value != value):
        raise UserError(f"{where}: {key} is {value!r}, expected a number.")
    return value


def _whole(given: Mapping[str, Any], key: str, where: str, low: int, high: int) -> int:
    value = given[key]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{where}: {key} is {value!r}, expected a whole number of {low} to {high}.")
    return value
