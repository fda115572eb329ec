"""What each filter of a recipe asks of the joined columns: the samples that it takes away."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.select.duplicates import better_copies_exist
from curation.select.join import Joined
from curation.select.names import ColumnId
from curation.select.noun_cap import keep_under_cap
from curation.select.recipe import Absent, Duplicates, Filter, NounCap, Range, Values
from schemas.errors import UserError

_Bools = npt.NDArray[np.bool_]


def taken_away(one: Filter, joined: Joined, names: Mapping[str, ColumnId], alive: _Bools) -> _Bools:
    """The samples [N] that the filter takes away; of those that depend on others, all are among the `alive`.

    It is not asked about samples of which its column's table has no row. Raises `UserError` where a column's type does
    not fit the filter.
    """
    test, column = one.test, names[one.test.column]
    asked = joined.present.get(column.table, np.ones(len(joined), np.bool_))
    if isinstance(test, NounCap):
        asked = asked & alive
        return asked & ~keep_under_cap(joined.lists[column], test, joined.ids, asked)
    values = joined.columns[column]
    if isinstance(test, Duplicates):
        prefer = None if test.prefer is None else joined.columns[names[test.prefer]]
        return _duplicates(one.name, values, prefer, test.within, asked & alive)
    kept, known = _kept(one.name, test, values)
    return asked & ~np.where(known, kept, test.allow_null)


def _kept(name: str, test: Range | Values | Absent, values: Any) -> tuple[_Bools, _Bools]:
    """Which samples the filter keeps, and of which it can tell."""
    if isinstance(test, Absent):
        return _without(name, values, test.words), _valid(values)
    if isinstance(test, Values):
        return _among(name, values, test) == test.keep, _valid(values)
    if pa.types.is_list(values.type):
        values = pc.list_value_length(values)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_null(values.type)):
        raise UserError(f"filter {name!r}: min and max need numbers or lists, and the column is {values.type}.")
    kept = np.ones(len(values), np.bool_)
    for bound, compare in ((test.min, pc.greater_equal), (test.max, pc.less_equal)):
        if bound is not None:
            kept &= _bools(compare(values, pa.scalar(bound)))
    return kept, _valid(values)


def _among(name: str, values: Any, test: Values) -> _Bools:
    try:
        wanted = pa.array(test.values).cast(values.type)
    # Arrow says it in three ways: values of several types, one that does not fit, a type without such a cast.
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        raise UserError(f"filter {name!r}: the column is {values.type}, and cannot be {test.values}.") from None
    return _bools(pc.is_in(values, value_set=wanted))


def _without(name: str, values: Any, words: tuple[str, ...]) -> _Bools:
    if not pa.types.is_list(values.type) or not pa.types.is_string(values.type.value_type):
        raise UserError(f"filter {name!r}: absent needs lists of strings, and the column is {values.type}.")
    out = np.ones(len(values), np.bool_)
    found = _bools(pc.is_in(pc.list_flatten(values), value_set=pa.array(words, pa.string())))
    out[pc.list_parent_indices(values).to_numpy()[found]] = False
    return out


def _duplicates(name: str, values: Any, prefer: Any, within: int, alive: _Bools) -> _Bools:
    if not pa.types.is_integer(values.type):
        raise UserError(
            f"filter {name!r}: within needs 64-bit hashes as whole numbers, and the column is {values.type}."
        )
    asked = np.flatnonzero(alive & _bools(pc.is_valid(values)))
    hashes = pc.fill_null(values, 0).to_numpy()[asked].astype(np.int64 if values.type == pa.int64() else np.uint64)
    rank = np.arange(len(asked))
    if prefer is not None:
        if not (pa.types.is_integer(prefer.type) or pa.types.is_floating(prefer.type)):
            raise UserError(f"filter {name!r}: prefer needs numbers, and the column is {prefer.type}.")
        worth = pc.cast(prefer, pa.float64()).to_numpy(zero_copy_only=False)[asked]
        best_first = np.argsort(np.where(np.isnan(worth), np.inf, -worth), kind="stable")
        rank[best_first] = np.arange(len(asked))
    out = np.zeros(len(alive), np.bool_)
    out[asked] = better_copies_exist(hashes.view(np.uint64), rank, within)
    return out


def _valid(values: Any) -> _Bools:
    return ~_bools(pc.is_null(values, nan_is_null=True))


def _bools(values: Any) -> _Bools:
    found: _Bools = pc.fill_null(values, False).to_numpy(zero_copy_only=False).astype(np.bool_)
    return found
