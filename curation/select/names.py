"""What a recipe's column names mean among the tables that are there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.select.recipe import Filter
from curation.select.tables import InputTable
from schemas.errors import UserError

_SAMPLES = "samples"


@dataclass(frozen=True, slots=True, order=True)
class ColumnId:
    """A column of a table; with `map`, the number of that name in the table's column `map`."""

    table: str
    column: str
    map: str = ""

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"


SHARD = ColumnId(_SAMPLES, "shard")
KEY = ColumnId(_SAMPLES, "key")


class Names:
    """Finds columns by `column`, or `table.column` where several tables have it."""

    def __init__(self, tables: Sequence[InputTable]) -> None:
        self._tables = tables
        self._known = [SHARD, KEY, *(ColumnId(t.name, c) for t in tables for c in t.columns())]
        self._maps_read = False

    def resolve(self, filters: Iterable[Filter]) -> dict[str, ColumnId]:
        """The columns that `filters` name, by what they are called there.

        Raises `UserError` for a name that no table has, listing all there are, or that several have.
        """
        found: dict[str, ColumnId] = {}
        for one in filters:
            for name in (*one.columns, *one.word_columns):
                found[name] = self._find(name, one)
        return found

    def _find(self, name: str, asking: Filter) -> ColumnId:
        fitting = self._fitting(name)
        if not fitting and not self._maps_read:
            # Names in maps are known only by reading them, so they are looked up last.
            self._known += self._in_maps()
            self._maps_read = True
            fitting = self._fitting(name)
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise UserError(
                f"filter {asking.name!r}: {name} is in several tables; write {' or '.join(map(str, fitting))}."
            )
        raise UserError(
            f"filter {asking.name!r}: no column {name}; there are {', '.join(sorted(map(str, self._known)))}. "
            f"Give its table by --table."
        )

    def _fitting(self, name: str) -> list[ColumnId]:
        whole = [known for known in self._known if str(known) == name]
        return whole or [known for known in self._known if known.column == name]

    def _in_maps(self) -> list[ColumnId]:
        known = {str(one) for one in self._known}
        out = []
        for table in self._tables:
            for column in table.maps():
                names: set[str] = set()
                for part in table.read([column]):
                    keys = pa.chunked_array([chunk.keys for chunk in part[column].chunks], pa.string())
                    names.update(pc.unique(keys).to_pylist())
                ids = (ColumnId(table.name, name, column) for name in sorted(names))
                out += [one for one in ids if str(one) not in known]
        return out
