"""Choose samples by a recipe: the funnel, the selection, and what became of the nouns."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from curation.select.distribution import NounDistribution, noun_distribution
from curation.select.filters import taken_away
from curation.select.join import Joined, TableFacts, join
from curation.select.names import Names
from curation.select.recipe import NounCap, Recipe
from curation.select.tables import InputTable
from schemas.errors import UserError
from schemas.selection import Selection, make_selection

_Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FunnelRow:
    """What one filter takes away: `total` by itself; `marginal` of what the filters before it left; `unique` what no
    other filter takes; `left` is what stands after it. total >= marginal >= unique.

    A filter that `depends_on_others` (duplicates, a noun cap) looks only at what the filters before it left, so there
    its total is its marginal.
    """

    name: str
    total: int
    marginal: int
    unique: int
    left: int
    depends_on_others: bool = False


@dataclass(frozen=True, slots=True)
class NounBalance:
    """The nouns that a cap met, and those of what was selected in the end."""

    filter: str
    cap: int
    before: NounDistribution
    after: NounDistribution


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a recipe makes of the tables."""

    recipe: Recipe
    samples: int
    tables: tuple[TableFacts, ...]
    funnel: tuple[FunnelRow, ...]
    nouns: tuple[NounBalance, ...]
    joined: Joined
    alive: _Bools
    blank: tuple[str, ...]
    """Columns that filters ask about and in which no sample has a value."""

    @property
    def selected(self) -> int:
        """How many samples are left."""
        return int(self.alive.sum())

    def as_json(self) -> dict[str, Any]:
        """Everything but the samples themselves, as plain values: the same for the same content of tables."""
        return {
            "recipe": dataclasses.asdict(self.recipe),
            "samples": self.samples,
            "selected": self.selected,
            "tables": [dataclasses.asdict(table) for table in self.tables],
            "funnel": [dataclasses.asdict(row) for row in self.funnel],
            "nouns": [dataclasses.asdict(balance) for balance in self.nouns],
        }

    def selection(self) -> Selection:
        """The samples that are left, ready to be written. Raises `UserError` if there are none."""
        if not self.selected:
            advice = "Loosen the recipe."
            if self.blank:
                advice = f"No sample has a value in {', '.join(self.blank)}: have it made, or leave out its filter."
            raise UserError(f"nothing of {self.samples:,} samples is left to select; nothing was written. {advice}")
        return make_selection(self.joined.pairs(self.alive), self.as_json())


def select(tables: Sequence[InputTable], recipe: Recipe) -> Outcome:
    """Apply `recipe` to `tables`.

    First go, by a filter of its own, the samples of which a table has no row, unless the recipe keeps them. Raises
    `UserError` for columns that do not exist or do not fit, and what `join` raises.
    """
    unknown = sorted(recipe.missing.keys() - {table.name for table in tables})
    if unknown:
        raise UserError(
            f"recipe {recipe.name}: missing.{unknown[0]} is no table here; there are "
            f"{', '.join(table.name for table in tables)}. Give it by --table."
        )
    names = Names(tables).resolve(recipe.filters)
    columns = {names[name] for one in recipe.filters for name in one.columns}
    joined = join(tables, columns, {names[name] for one in recipe.filters for name in one.word_columns})
    funnel = _Funnel(len(joined))
    for facts in joined.tables:
        if facts.missing and recipe.missing.get(facts.name, "drop") == "drop":
            funnel.take(f"no {facts.name} row", ~joined.present[facts.name])
    met: dict[str, tuple[NounCap, NounDistribution]] = {}
    for one in recipe.filters:
        if isinstance(one.test, NounCap):
            lists = joined.lists[names[one.test.column]]
            met[one.name] = one.test, noun_distribution(lists, funnel.alive, one.test.cap)
        funnel.take(one.name, taken_away(one, joined, names, funnel.alive), one.depends_on_others)
    balances = tuple(
        NounBalance(name, cap.cap, before, noun_distribution(joined.lists[names[cap.column]], funnel.alive, cap.cap))
        for name, (cap, before) in met.items()
    )
    blank = {one.test.column: joined.columns.get(names[one.test.column]) for one in recipe.filters}
    return Outcome(
        recipe=recipe,
        samples=len(joined),
        tables=joined.tables,
        funnel=funnel.rows(),
        nouns=balances,
        joined=joined,
        alive=funnel.alive,
        blank=tuple(name for name, values in blank.items() if values is not None and values.null_count == len(values)),
    )


class _Funnel:
    """Counts what filters take away, in order."""

    def __init__(self, samples: int) -> None:
        self.alive = np.ones(samples, np.bool_)
        self._takers = np.zeros(samples, np.int32)  # how many filters take the sample
        self._taker = np.zeros(samples, np.int32)  # the sum of their numbers: of one, which it is
        self._rows: list[FunnelRow] = []

    def take(self, name: str, gone: _Bools, depends_on_others: bool = False) -> None:
        """Add the filter `name`, which takes the samples `gone`."""
        number, marginal = len(self._rows), int((gone & self.alive).sum())
        self.alive &= ~gone
        self._takers += gone
        self._taker[gone] += number
        left = int(self.alive.sum())
        self._rows.append(FunnelRow(name, int(gone.sum()), marginal, 0, left, depends_on_others))

    def rows(self) -> tuple[FunnelRow, ...]:
        """The rows, with what each takes alone."""
        alone = np.bincount(self._taker[self._takers == 1], minlength=len(self._rows))
        return tuple(dataclasses.replace(row, unique=int(alone[i])) for i, row in enumerate(self._rows))
